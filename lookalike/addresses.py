"""Where everything answers: what the settings say, else the running `up` that the data folder names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lookalike.local.runfile import Run, RunFile
from lookalike.settings import Settings
from streams.errors import ConfigError
from streams.settings import DEFAULT_PARTITIONS

LOCAL_PARTITIONS = 8
"""Of each lane on the broker of `up`: one machine gains nothing from more."""

QUIET = {"log_level": 0}
"""librdkafka writes to stderr by itself; what it has to say reaches the user as one line of ours."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Asked for one by one, because a command needs only some; `running` is None where no `up` was found.

    Each call raises ConfigError where nothing is known, saying what to set or to start.
    """

    data: Path
    running: Run | None

    def kafka(self, settings: Settings) -> dict[str, str | int]:
        """The client configuration that reaches the broker."""
        if settings.kafka.bootstrap is not None:
            return {**settings.kafka.client_config(), **QUIET}
        bootstrap = self._running("LOOKALIKE_KAFKA_BOOTSTRAP").bootstrap
        return {**settings.kafka.model_copy(update={"bootstrap": bootstrap}).client_config(), **QUIET}

    def partitions(self, settings: Settings) -> int:
        """How many partitions a lane has: what is set, else what suits the broker that is used."""
        return settings.kafka.partitions or (LOCAL_PARTITIONS if self.is_local(settings) else DEFAULT_PARTITIONS)

    def is_local(self, settings: Settings) -> bool:
        """Whether the broker is that of a running `up`: one node, by its nature."""
        return settings.kafka.bootstrap is None and self.running is not None

    def index_socket(self, settings: Settings) -> Path:
        """The unix socket of the index process."""
        return settings.index.index_socket or self._running("LOOKALIKE_INDEX_SOCKET").index_socket

    def objects_dir(self, settings: Settings) -> Path:
        """The folder that holds the buckets."""
        return settings.objects.objects_dir or self._running("LOOKALIKE_OBJECTS_DIR").objects_dir

    def api_url(self, settings: Settings) -> str:
        """Where the API answers, without a slash at the end."""
        if self.running is not None and "port" not in settings.api.model_fields_set:
            return self.running.api_url
        return f"http://{settings.api.host}:{settings.api.port}"

    def _running(self, variable: str) -> Run:
        if self.running is None:
            raise ConfigError(f"nothing runs in {self.data}: start `lookalike up`, name its folder, or set {variable}")
        return self.running


def find_addresses(settings: Settings, data: Path | None = None) -> Addresses:
    """Look into `data`, by default the folder of the settings."""
    folder = data or settings.process.data
    return Addresses(folder, RunFile(folder).read())
