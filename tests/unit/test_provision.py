"""What `cloud-sim provision` makes: certificates that strict TLS accepts, private files, and nothing written over."""

import ssl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from typer.testing import CliRunner

from cloud_sim import new_file
from cloud_sim import provision as module
from cloud_sim.cli.commands import app
from cloud_sim.connection import Misconfigured
from cloud_sim.provision import Provision
from device_agent.adapters.broker import Address, Broker
from device_agent.cli.options import agent_options
from device_agent.cli.settings import load

NOW = datetime.now(UTC)
NAMES = ("localhost", "127.0.0.1", "::1")


def run(folder: Path, *devices: str, names: tuple[str, ...] = NAMES, **options: Any) -> list[str]:
    """What was written, relative to the folder."""
    provision = Provision(folder, "plant7", NOW, **options)
    provision.run(names, devices)
    return [str(file.relative_to(folder)) for file in provision.made]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def certificate(file: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(file.read_bytes())


def handshake(folder: Path, device: str, host: str) -> dict[str, Any]:
    """A device's own context against the broker's files, both strict: what the broker learns of the device."""
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=folder / "broker" / "ca.crt")
    server.load_cert_chain(folder / "broker" / "server.crt", folder / "broker" / "server.key")
    server.verify_mode = ssl.CERT_REQUIRED
    home = folder / "devices" / device
    settings = Broker(
        Address(host, 8883, tls=True),
        ca_file=home / "ca.crt",
        cert_file=home / "client.crt",
        key_file=home / "client.key",
    )
    client = settings.tls_context()
    assert client
    for context in (server, client):
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [server.wrap_bio(up, down, server_side=True), client.wrap_bio(down, up, server_hostname=host)]
    while ends:
        for end in list(ends):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            ends.remove(end)
            if end.server_side:
                learned = end.getpeercert()
    assert learned
    return dict(learned)


@pytest.mark.parametrize("host", NAMES)
def test_broker_and_device_believe_each_other(tmp_path: Path, host: str) -> None:
    run(tmp_path / "p", "pump-1")
    learned = handshake(tmp_path / "p", "pump-1", host)
    assert learned["subject"] == ((("commonName", "pump-1"),),)


def test_a_device_does_not_believe_another_device(tmp_path: Path) -> None:
    folder = tmp_path / "p"
    run(folder, "pump-1")
    for name in ("client.crt", "client.key"):
        (folder / "broker" / name.replace("client", "server")).write_bytes(
            (folder / "devices" / "pump-1" / name).read_bytes()
        )
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(folder, "pump-1", "localhost")


def test_the_device_runs_with_what_its_folder_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ON_DEVICE", tmp_path / "p" / "devices" / "pump-1")
    run(tmp_path / "p", "pump-1", names=("broker.example", "10.0.0.1"))
    lines = (tmp_path / "p" / "devices" / "pump-1" / "agent.env").read_text(encoding="utf-8").splitlines()
    for line in lines:
        monkeypatch.setenv(*line.split("=", 1))
    settings = load()
    options = agent_options(settings)
    assert (settings.fleet, settings.device_id) == ("plant7", "pump-1")
    assert settings.mqtt_url == "mqtts://broker.example:8883"
    assert settings.broker().tls_context()
    assert options.trusted
    assert len(options.trusted().keys) == 1


def test_what_is_private_is_for_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "p"
    run(folder, "pump-1")
    assert folder.stat().st_mode & 0o777 == 0o700
    private = {name for name, content in contents(folder).items() if b"PRIVATE" in content}
    assert private == {
        "ca.key",
        "broker/server.key",
        "cloud/client.key",
        "cloud/signing.key",
        "devices/pump-1/client.key",
    }
    for name in private | {"broker/passwords"}:
        assert (folder / name).stat().st_mode & 0o777 == 0o600, name


def test_run_again_it_only_adds(tmp_path: Path) -> None:
    folder = tmp_path / "p"
    run(folder, "pump-1")
    before = contents(folder)
    assert run(folder, "pump-1") == []
    assert run(folder, "pump-1", names=()) == []
    added = run(folder, "pump-2", names=())
    assert added
    assert all(name.startswith("devices/pump-2/") for name in added)
    assert contents(folder).items() >= before.items()


def test_other_names_of_the_broker_are_a_new_certificate_for_its_key(tmp_path: Path) -> None:
    folder = tmp_path / "p"
    run(folder, "pump-1", names=("localhost",))
    assert run(folder, "pump-1", names=NAMES) == ["broker/server.crt"]
    assert handshake(folder, "pump-1", "127.0.0.1")


def test_renewal_makes_certificates_anew_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "p"
    run(folder, "pump-1", "pump-2", days=10)
    before = contents(folder)
    renewed = run(folder, names=(), renew=True, days=20)
    assert sorted(renewed) == [
        "broker/server.crt",
        "cloud/client.crt",
        "devices/pump-1/client.crt",
        "devices/pump-2/client.crt",
    ]
    changed = {name for name, content in contents(folder).items() if before[name] != content}
    assert changed == set(renewed)
    assert handshake(folder, "pump-2", "localhost")
    new = certificate(folder / "devices" / "pump-1" / "client.crt")
    assert new.not_valid_after_utc - NOW == pytest.approx(timedelta(days=20), abs=timedelta(seconds=1))
    assert new.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "pump-1"


def test_a_run_that_is_cut_short_anywhere_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(new_file.os, "fsync", lambda _descriptor: None)
    whole = tmp_path / "whole"
    run(whole, "pump-1")
    writes = len(contents(whole))
    for at in range(writes):
        folder = tmp_path / f"cut-{at}"
        left = [at]

        def cut(*arguments: Any, real: Any, left: list[int] = left) -> None:
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1
            real(*arguments)

        with monkeypatch.context() as patch:
            for where, name in ((module, "write_new"), (module, "write_over"), (module.keys, "write_new")):
                real = getattr(where, name)
                patch.setattr(where, name, lambda *arguments, real=real, cut=cut: cut(*arguments, real=real))
            with pytest.raises(KeyboardInterrupt):
                run(folder, "pump-1")
        run(folder, "pump-1")
        assert contents(folder).keys() == contents(whole).keys(), at
        assert handshake(folder, "pump-1", "localhost")
        assert not [name for name in contents(folder) if "/." in name or name.startswith(".")]


@pytest.mark.parametrize(
    ("devices", "names", "why"),
    [
        (("cloud",), NAMES, "no device may be called 'cloud'"),
        (("../x",), NAMES, "device id"),
        (("pump-1",), (), "which broker"),
        (("pump-1",), ("mqtts://x",), "neither a host name"),
        (("pump-1",), ("a b",), "neither a host name"),
        (("pump-1",), ("",), "neither a host name"),
    ],
)
def test_what_cannot_be_meant_is_told(
    tmp_path: Path, devices: tuple[str, ...], names: tuple[str, ...], why: str
) -> None:
    with pytest.raises(Misconfigured, match=why):
        run(tmp_path / "p", *devices, names=names)


def test_a_damaged_file_is_told_and_not_written_over(tmp_path: Path) -> None:
    run(tmp_path / "p", "pump-1")
    (tmp_path / "p" / "ca.key").write_bytes(b"")
    with pytest.raises(Misconfigured, match="cannot be used"):
        run(tmp_path / "p", "pump-2")
    assert (tmp_path / "p" / "ca.key").read_bytes() == b""


def test_what_it_configures_is_what_the_repository_ships() -> None:
    shipped = Path(__file__).parents[2] / "deploy" / "mosquitto"
    made = Path(module.__file__).parent / "mosquitto"
    for name in ("acl.conf", "secure.conf"):
        assert (shipped / name).read_bytes() == (made / name).read_bytes()


def test_the_command(tmp_path: Path) -> None:
    arguments = ["provision", str(tmp_path / "p"), "--fleet", "plant7", "--device", "pump-1"]
    assert CliRunner().invoke(app, arguments).exit_code == 2
    done = CliRunner().invoke(app, [*arguments, "--broker", "localhost"])
    assert done.exit_code == 0, done.output
    assert "devices/pump-1/client.key" in done.output
    assert "PRIVATE" not in done.output
    assert "everything is there already" in CliRunner().invoke(app, arguments).output


def test_two_at_once_do_not_write_over_each_other(tmp_path: Path) -> None:
    """Whoever comes second ends with an error; what there is stays of one piece."""
    ended: list[object] = []

    def once() -> None:
        try:
            ended.append(run(tmp_path / "p", "pump-1"))
        except Misconfigured as error:
            ended.append(error)

    threads = [threading.Thread(target=once) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ended) == 4
    run(tmp_path / "p", "pump-1")
    assert handshake(tmp_path / "p", "pump-1", "localhost")
