"""`cloud-sim keys`: what it writes, for whom it is readable, and what it never writes over."""

import json
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from typer.testing import CliRunner

from cloud_sim.cli.commands import app
from cloud_sim.connection import Misconfigured
from cloud_sim.keys import generate, read_signing_keys, show
from device_agent.wire.dsse import TARGET, load_trusted_keys, open_envelope, seal
from tests.signing import ALICE, public_pem


def private_pem(key: object, password: bytes | None = None) -> bytes:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    raw: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)  # type: ignore[attr-defined]
    return raw


def test_what_is_generated_signs_what_its_public_half_opens(tmp_path: Path) -> None:
    public = generate(tmp_path / "signing.key")
    assert public == tmp_path / "signing.pem"
    (key,) = read_signing_keys([tmp_path / "signing.key"])
    trusted = load_trusted_keys(tmp_path)
    assert open_envelope(json.loads(seal(b"{}", [key])), trusted, TARGET) == b"{}"


def test_only_the_owner_may_read_the_private_half(tmp_path: Path) -> None:
    public = generate(tmp_path / "signing.key")
    assert (tmp_path / "signing.key").stat().st_mode & 0o777 == 0o600
    assert public.stat().st_mode & 0o777 == 0o644
    assert b"PRIVATE" not in public.read_bytes()


def test_no_key_is_written_over(tmp_path: Path) -> None:
    generate(tmp_path / "a.key")
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    for name in ("a.key", "a"):
        with pytest.raises(Misconfigured, match="is there already"):
            generate(tmp_path / name)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_openssl_reads_both_halves(tmp_path: Path) -> None:
    public = generate(tmp_path / "signing.key")
    out = subprocess.run(
        ["openssl", "pkey", "-in", tmp_path / "signing.key", "-pubout"], check=True, capture_output=True
    )
    assert out.stdout == public.read_bytes()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"nonsense", "no private key"),
        (private_pem(generate_private_key(SECP256R1())), "not an Ed25519 key"),
        (private_pem(ALICE, b"secret"), "is encrypted"),
        (public_pem(ALICE), "no private key"),
    ],
    ids=["nonsense", "curve", "encrypted", "public"],
)
def test_what_cannot_sign_is_told(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "a.key").write_bytes(content)
    with pytest.raises(Misconfigured, match=why):
        read_signing_keys([tmp_path / "a.key"])


def test_a_private_key_must_not_be_called_as_public_ones_are(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"name the private one a\.key"):
        generate(tmp_path / "a.pem")
    assert list(tmp_path.iterdir()) == []


def test_show_tells_the_same_of_both_halves_and_nothing_private(tmp_path: Path) -> None:
    (tmp_path / "a.key").write_bytes(private_pem(ALICE))
    (tmp_path / "a.pem").write_bytes(public_pem(ALICE))
    assert show(tmp_path / "a.key") == show(tmp_path / "a.pem")
    said = CliRunner().invoke(app, ["keys", "show", "--json", str(tmp_path / "a.key")])
    assert said.exit_code == 0
    body = json.loads(said.stdout)
    assert body["keyid"] == "fd110d301d2f077de1414b8f99f441b1403fab207b2052fbd2c065e4ee8e7dc2"
    assert body["public"] == public_pem(ALICE).decode()


@pytest.mark.parametrize("command", [["generate", "gone/a.key"], ["show", "gone.key"], ["show", "odd.key"]])
def test_mistakes_end_with_one_line_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd.key").write_bytes(b"-----BEGIN PUBLIC KEY-----")
    ended = CliRunner().invoke(app, ["keys", *command])
    assert ended.exit_code == 2
    assert ended.stderr.startswith("error: ")
    assert ended.stdout == ""
