"""Certificates of a bench's broker and its device, which faults let expire, and replace."""

from datetime import datetime
from pathlib import Path

from tests.certificates import Authority

DEVICE, SERVER = "device", "localhost"


class Certificates:
    """`folder` is the broker's. It reads them at its start, and again at SIGHUP."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._folder.mkdir(mode=0o755)
        self.authority = Authority()
        self._put(folder / "ca.pem", self.authority.pem)
        self.serve()

    def serve(self, *, authority: Authority | None = None, made: datetime | None = None) -> None:
        """Another certificate for the broker."""
        certificate, key = (authority or self.authority).issue(SERVER, "127.0.0.1", made=made)
        self._put(self._folder / "server.pem", certificate)
        self._put(self._folder / "server.key", key)

    def equip(self, home: Path, *, made: datetime | None = None) -> dict[str, str]:
        """Another certificate for the device, in its folder: the settings."""
        certificate, key = self.authority.issue(DEVICE, made=made)
        files = {"CA": home / "ca.pem", "CERT": home / "client.pem", "KEY": home / "client.key"}
        for file, content in zip(files.values(), (self.authority.pem, certificate, key), strict=True):
            self._put(file, content)
        return {f"MQTT_{name}_FILE": str(file) for name, file in files.items()}

    @staticmethod
    def _put(file: Path, content: bytes) -> None:
        fresh = file.with_suffix(".new")
        fresh.write_bytes(content)
        fresh.chmod(0o644)
        fresh.replace(file)
