"""An Edge index whose shard another process holds: what takes long there stops nobody here.

The binding holds Python's lock in every call, opening a shard included, which takes half a second for 100,000
points. So the index process opens none itself: it asks a holder, one question after the other, as it would call the
binding, and an optimised copy is opened by the next holder while this one goes on answering.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from embedder.index.apart.holder import Holder
from embedder.index.apart.line import Then
from embedder.index.apart.upkeep import Upkeep, due
from embedder.index.codec import encode, encode_writes
from embedder.index.edge.pointer import Pointer
from embedder.index.points import Write, Written
from embedder.index.protocol import CollectionSpec, Hits
from embedder.index.query import Query, each_answered
from embedder.index.service.calls import Calls, Result
from streams.errors import DependencyError, QueryError

RECORDED = frozenset({"write_now", "delete_tenant", "sweep"})
"""What changes points: a copy that is being optimised misses it."""
_written = msgspec.msgpack.Decoder(list[Written]).decode
_nothing = msgspec.msgpack.Decoder(None).decode
_number = msgspec.msgpack.Decoder(int).decode


class EngineApart(Calls):
    """One collection. Not thread-safe; the index process calls it from one thread, which has to outlive it."""

    def __init__(self, spec: CollectionSpec, home: Path, *, inherited: Sequence[int] = ()) -> None:
        """Start the holder of the shard under `home` and wait until it has opened, or made, it.

        Raises:
            ConfigError: it cannot be opened (another process has it, a damaged file).
            DependencyError: the holder cannot be started, or ended.
        """
        self._spec = spec
        self._pointer = Pointer(home)
        self._pointer.sweep()
        self._upkeep = Upkeep(lambda folder: Holder(spec, home, folder=folder, inherited=inherited), self._pointer)
        self._holder = Holder(spec, home, inherited=inherited)
        try:
            self._holder.wait_opened()
        except BaseException:
            self._holder.kill()
            raise
        self._asked_for = False
        self._leaving: threading.Thread | None = None

    def forward(self, operation: str, arguments: bytes | msgspec.Raw) -> bytes:
        """The encoded result of an operation with encoded arguments; raises what it raised."""
        answer = bytes(self._holder.ask(operation, arguments))
        if operation in RECORDED:  # what was refused, the copy would refuse as well
            self._upkeep.note(operation, bytes(arguments))
        return answer

    def soon(self, operation: str, arguments: msgspec.Raw, then: Then) -> None:
        """As :meth:`forward`, of what changes nothing, without waiting for it: `then` is called with the answer."""
        self._holder.soon(operation, arguments, then)

    def catch_up(self) -> None:
        """Returns when everything asked for by :meth:`soon` is answered."""
        self._holder.catch_up()

    def _ask(self, operation: str, arguments: bytes, decode: Callable[[msgspec.Raw], Result]) -> Result:
        return decode(msgspec.Raw(self.forward(operation, arguments)))

    def spec(self) -> CollectionSpec:
        return self._spec

    def write_now(self, tenant_id: str, writes: Sequence[Write]) -> list[Written]:
        return self._ask("write_now", encode_writes(tenant_id, writes), _written)

    def search_batch(self, tenant_id: str, queries: Sequence[Query]) -> list[Hits | QueryError]:
        return each_answered(lambda query: self.search(tenant_id, query), queries)

    # ---- maintenance -------------------------------------------------------------------------------

    def flush(self) -> None:
        if self._upkeep.copying:
            return  # nothing was written since the flush before the copy, and its files must not change under it
        self._ask("flush", encode(None), _nothing)

    def waiting(self) -> int:
        return self._ask("waiting", encode(None), _number)

    def optimise_soon(self) -> None:
        self._asked_for = True
        self._upkeep.try_again()

    def busy(self) -> bool:
        return self._upkeep.busy

    def held(self) -> bool:
        return self._upkeep.held

    def maintain(self, *, idle_s: float) -> None:
        """The next step of an optimisation, or the first one where it is due. DependencyError: the holder ended."""
        self._holder.check_alive()
        if self._upkeep.busy:
            try:
                gone = self._pointer.folder()
                following = self._upkeep.go_on(self._holder)
            except OSError as exc:  # a start reads what the pointer names
                raise DependencyError("index", f"an optimised copy cannot take over: {exc}") from exc
            if following is not None:
                self._take(following, gone)
            return
        if not self._upkeep.may_start:
            return
        waiting = self.waiting()
        if self._asked_for or due(waiting, idle_s=idle_s):
            self.flush()
            self._upkeep.start(waiting)

    def _take(self, following: Holder, gone: Path) -> None:
        """Ask the next holder from now on; the old one and its folder go without anybody's waiting."""
        old, self._holder = self._holder, following
        old.unwatch()
        self._asked_for = False
        if self._leaving is not None:
            self._leaving.join()
        self._leaving = threading.Thread(target=_clear, args=(old, gone), name="index-clear")
        self._leaving.start()

    def close(self) -> None:
        self._upkeep.give_up()
        self._upkeep.wait_cleared()
        if self._leaving is not None:
            self._leaving.join()
        self._holder.close()


def _clear(old: Holder, folder: Path) -> None:
    """Both may be gigabytes, which takes a while to let go of."""
    old.kill()
    shutil.rmtree(folder, ignore_errors=True)
