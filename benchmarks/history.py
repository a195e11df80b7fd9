"""A database that has seen many revisions: its size, and how long it takes to open and read."""

import secrets
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from device_agent.adapters.clock import SystemClock
from device_agent.adapters.store import open_store
from device_agent.model.memory import AcceptedTarget
from device_agent.model.target import Target, Version

REVISION_BYTES = 4000


def after(revisions: int, runs: int) -> tuple[list[float], int]:
    """Milliseconds to open it and load, and its size in bytes."""
    clock = SystemClock()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "data")
        store = open_store(folder, clock)
        for number in range(1, revisions + 1):
            body = {"web": {"services": {"api": {"image": "a/b:1", "labels": {"n": secrets.token_hex(100)}}}}}
            target = Target(
                "fleet",
                Version(1, number),
                f"sha256:{number}",
                None,
                None,
                None,
                False,
                body,
                secrets.token_bytes(REVISION_BYTES),
            )
            with store.transaction() as rows:
                rows.put_target(AcceptedTarget(target, datetime.now(UTC)))
                rows.queue("ack", lambda seq: b"{}" * 100 + str(seq).encode())
            for message in store.outbox(0, 10):
                with store.transaction() as rows:
                    rows.unqueue(message.seq)
        store.close()
        took = []
        for _ in range(runs):
            began = time.monotonic()
            store = open_store(folder, clock)
            store.load()
            took.append(time.monotonic() - began)
            store.close()
        return [each * 1e3 for each in took], sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
