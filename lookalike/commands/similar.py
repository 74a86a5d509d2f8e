"""``lookalike similar``: the pictures most like one, asked of the running API."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import click

from lookalike.addresses import find_addresses
from lookalike.options import IMAGE_ID, data_option, json_option, tenant_option
from lookalike.output import print_json, say, table
from lookalike.settings import read_settings


@click.command("similar")
@tenant_option
@click.option("--image", "image_id", type=IMAGE_ID, default=None, help="One of the tenant's own pictures.")
@click.option(
    "--file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=None,
    help="A picture that is not stored, only compared.",
)
@click.option("--limit", type=click.IntRange(1, 100), default=10, show_default=True, help="How many at most.")
@data_option
@json_option
def command(
    tenant_id: str, image_id: str | None, file: Path | None, limit: int, data: Path | None, as_json: bool
) -> None:
    """Show the pictures most like one. Scores are cosines: 1 is the same direction.

    \b
    Examples:
      lookalike similar --tenant acme --image cat-1
      lookalike similar --tenant acme --file kitten.jpg --limit 5 --json
    """
    from lookalike.asking import ask

    settings = read_settings()
    url, key = find_addresses(settings, data).api_url(settings), settings.api.key
    if image_id is not None and file is None:
        answer = ask(url, f"/v1/tenants/{tenant_id}/images/{quote(image_id)}/similar?limit={limit}", key=key)
    elif file is not None and image_id is None:
        answer = ask(url, f"/v1/tenants/{tenant_id}/search/upload?limit={limit}", body=file.read_bytes(), key=key)
    else:
        raise click.UsageError("give either --image or --file")
    if as_json:
        print_json(answer)
        return
    for line in table((hit["image_id"], f"{hit['score']:.4f}") for hit in answer["hits"]):
        say(line)
