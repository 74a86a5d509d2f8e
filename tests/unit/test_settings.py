"""Settings: one catalogue, errors of one line that name the variable, secrets from files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from embedder.settings import IndexSettings, ObjectSettings, WorkerSettings
from lookalike import settings_docs
from lookalike.settings import known_variables, read_settings, unknown_variables
from query_api.settings import ApiSettings
from streams.errors import ConfigError
from streams.settings import KafkaSettings, load


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("LOOKALIKE_"):
            monkeypatch.delenv(name)


def test_defaults_alone_are_valid() -> None:
    """Without any variable every section can be read."""
    settings = read_settings()
    assert settings.kafka.group_id == "lookalike-embedder"
    assert settings.objects.buckets == ("pictures",)
    assert settings.api.host == "127.0.0.1"


def test_a_misspelt_variable_is_an_error_that_names_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable nobody reads would be a setting that somebody believes in."""
    monkeypatch.setenv("LOOKALIKE_KAFKA_BOOTSTRAPS", "localhost:9092")
    with pytest.raises(ConfigError, match=r"LOOKALIKE_KAFKA_BOOTSTRAPS .* nearest is LOOKALIKE_KAFKA_BOOTSTRAP "):
        read_settings()


def test_other_prefixes_are_nobodys_business() -> None:
    """Only our own prefix is checked, and known variables pass."""
    assert (
        unknown_variables({"PATH", "KAFKA_BOOTSTRAP", "LOOKALIKE_API_PORT", "LOOKALIKE_KAFKA_SASL_PASSWORD_FILE"}) == []
    )


def test_only_secrets_have_a_file_twin() -> None:
    """`…_FILE` is known exactly for what may be read from a file."""
    known = known_variables()
    assert "LOOKALIKE_S3_SECRET_KEY_FILE" in known
    assert "LOOKALIKE_API_PORT_FILE" not in known


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("LOOKALIKE_API_PORT", "eighty"),
        ("LOOKALIKE_API_PORT", "70000"),
        ("LOOKALIKE_KAFKA_GROUP_PROTOCOL", "magic"),
        ("LOOKALIKE_KAFKA_SSL_CA_FILE", "/no/such/file.pem"),
        ("LOOKALIKE_LOG_LEVEL", "loud"),
        ("LOOKALIKE_BUCKETS", " , "),
        ("LOOKALIKE_TENANT_PREFIXES", "shared/"),
        ("LOOKALIKE_WORKER_DRAIN_S", "-1"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_variable_and_value(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    """The operator reads which variable is wrong and what it was."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError) as caught:
        read_settings()
    message = str(caught.value)
    assert message.startswith(variable)
    assert "\n" not in message


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose files pass empty variables through; they mean the default."""
    monkeypatch.setenv("LOOKALIKE_API_PORT", "")
    assert load(ApiSettings).port == 8080


def test_settings_are_frozen() -> None:
    """What was read at start holds until the end."""
    settings = load(WorkerSettings)
    with pytest.raises(ValueError, match="frozen"):
        settings.max_batch = 1


def _sasl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKALIKE_KAFKA_BOOTSTRAP", "broker:9093")
    monkeypatch.setenv("LOOKALIKE_KAFKA_SECURITY_PROTOCOL", "SASL_SSL")
    monkeypatch.setenv("LOOKALIKE_KAFKA_SASL_MECHANISM", "SCRAM-SHA-512")
    monkeypatch.setenv("LOOKALIKE_KAFKA_SASL_USERNAME", "embedder")


def test_a_secret_comes_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The file's closing newline is not part of the secret, and the value never shows."""
    _sasl(monkeypatch)
    secret = tmp_path / "password"
    secret.write_text("s3cret\n")
    monkeypatch.setenv("LOOKALIKE_KAFKA_SASL_PASSWORD_FILE", str(secret))
    kafka = load(KafkaSettings)
    assert kafka.client_config() == {
        "bootstrap.servers": "broker:9093",
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "embedder",
        "sasl.password": "s3cret",
    }
    assert "s3cret" not in repr(kafka)


def test_a_secret_given_twice_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Which of the two would win is nothing to guess."""
    _sasl(monkeypatch)
    monkeypatch.setenv("LOOKALIKE_KAFKA_SASL_PASSWORD", "one")
    monkeypatch.setenv("LOOKALIKE_KAFKA_SASL_PASSWORD_FILE", str(tmp_path / "two"))
    with pytest.raises(ConfigError, match=r"LOOKALIKE_KAFKA_SASL_PASSWORD and .*_FILE are both set"):
        load(KafkaSettings)


def test_a_secret_file_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Falling back to no password would be a silent downgrade."""
    _sasl(monkeypatch)
    monkeypatch.setenv("LOOKALIKE_KAFKA_SASL_PASSWORD_FILE", str(tmp_path / "missing"))
    with pytest.raises(ConfigError, match=r"LOOKALIKE_KAFKA_SASL_PASSWORD_FILE=.*missing"):
        load(KafkaSettings)


def test_half_a_login_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the password the broker would refuse much later, and less clearly."""
    _sasl(monkeypatch)
    with pytest.raises(ConfigError, match="SASL_SSL needs LOOKALIKE_KAFKA_SASL_PASSWORD"):
        load(KafkaSettings)


def test_a_login_without_effect_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A password with PLAINTEXT would never be sent, and its owner would believe it is."""
    monkeypatch.setenv("LOOKALIKE_KAFKA_SASL_PASSWORD", "s3cret")
    with pytest.raises(ConfigError, match="LOOKALIKE_KAFKA_SASL_PASSWORD has no effect") as caught:
        load(KafkaSettings)
    assert "s3cret" not in str(caught.value)


def _s3(monkeypatch: pytest.MonkeyPatch, **more: str) -> None:
    given = {"ENDPOINT": "https://s3.example.com:9000", "ACCESS_KEY": "key", "SECRET_KEY": "s3cret", **more}
    for name, value in given.items():
        monkeypatch.setenv(f"LOOKALIKE_S3_{name}", value)


def test_an_s3_store_is_reached_with_its_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each of the three secrets also from a file; none of them shows."""
    _s3(monkeypatch, SECRET_KEY="", REGION="eu-central-1", PATH_STYLE="false")
    for name, value in (("SECRET_KEY", "s3cret"), ("SESSION_TOKEN", "t0ken")):
        (tmp_path / name).write_text(f"{value}\n")
        monkeypatch.setenv(f"LOOKALIKE_S3_{name}_FILE", str(tmp_path / name))
    objects = load(ObjectSettings)
    assert objects.s3_secret_key is not None
    assert objects.s3_session_token is not None
    assert objects.s3_secret_key.get_secret_value() == "s3cret"
    assert objects.s3_session_token.get_secret_value() == "t0ken"
    assert (objects.s3_region, objects.s3_path_style) == ("eu-central-1", False)
    assert "s3cret" not in repr(objects)


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ({"ENDPOINT": ""}, "LOOKALIKE_S3_ACCESS_KEY has no effect: set LOOKALIKE_S3_ENDPOINT"),
        ({"ENDPOINT": "", "ACCESS_KEY": "", "SECRET_KEY": "", "REGION": "x"}, "LOOKALIKE_S3_REGION has no effect"),
        ({"ENDPOINT": "s3.example.com"}, "LOOKALIKE_S3_ENDPOINT=s3.example.com"),
        ({"ENDPOINT": "https://key:secret@host"}, "LOOKALIKE_S3_ENDPOINT="),
        ({"ENDPOINT": "https://host/bucket"}, "LOOKALIKE_S3_ENDPOINT="),
        ({"SECRET_KEY": ""}, "ACCESS_KEY and LOOKALIKE_S3_SECRET_KEY need each other"),
        ({"ACCESS_KEY": "", "SECRET_KEY": "", "SESSION_TOKEN": "t"}, "LOOKALIKE_S3_SESSION_TOKEN needs"),
        ({"ENDPOINT": "http://host:9000", "CA_FILE": __file__}, "LOOKALIKE_S3_CA_FILE has no effect"),
    ],
)
def test_half_an_s3_store_is_an_error(monkeypatch: pytest.MonkeyPatch, more: dict[str, str], complaint: str) -> None:
    """Found at the start, and the line names the variable."""
    _s3(monkeypatch, **more)
    with pytest.raises(ConfigError, match=complaint) as caught:
        load(ObjectSettings)
    assert "s3cret" not in str(caught.value)


def test_two_stores_are_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Which of them would win is nothing to guess."""
    _s3(monkeypatch, ENDPOINT="http://host:9000")
    monkeypatch.setenv("LOOKALIKE_OBJECTS_DIR", str(tmp_path))
    with pytest.raises(ConfigError, match="LOOKALIKE_OBJECTS_DIR and LOOKALIKE_S3_ENDPOINT are both set"):
        load(ObjectSettings)


@pytest.mark.parametrize("declared", ["price", "price:text", "width_px:number", "a:time,a:number"])
def test_a_wrong_field_is_told_with_its_variable(monkeypatch: pytest.MonkeyPatch, declared: str) -> None:
    """A field that no collection can have stops the start."""
    monkeypatch.setenv("LOOKALIKE_DECLARED_FIELDS", declared)
    with pytest.raises(ConfigError, match="LOOKALIKE_DECLARED_FIELDS"):
        load(IndexSettings)


def test_two_indexes_are_one_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server and a socket: which one is meant is not guessed."""
    monkeypatch.setenv("LOOKALIKE_QDRANT_URL", "http://127.0.0.1:6333")
    assert load(IndexSettings).qdrant_url is not None
    monkeypatch.setenv("LOOKALIKE_INDEX_SOCKET", "/tmp/index.sock")
    with pytest.raises(ConfigError, match="LOOKALIKE_INDEX_SOCKET"):
        load(IndexSettings)


def test_lists_are_comma_separated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spaces around the commas and empty parts do not matter."""
    monkeypatch.setenv("LOOKALIKE_BUCKETS", "pictures, archive,")
    assert load(ObjectSettings).buckets == ("pictures", "archive")


def test_the_page_of_settings_is_what_the_catalogue_says() -> None:
    """docs/settings.md is generated: `make docs` renews it."""
    page = Path(__file__).parents[2] / "docs" / "settings.md"
    assert page.read_text(encoding="utf-8") == settings_docs.render()
