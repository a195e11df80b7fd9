import ssl
from pathlib import Path

import pytest

from device_agent.adapters.broker import Address, Broker, Wants, parse_url
from tests.certificates import Authority

PLAIN = Address("broker.example", 1883, tls=False)
SECURE = Address("broker.example", 8883, tls=True)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("mqtt://broker.example", PLAIN),
        ("mqtts://broker.example", SECURE),
        ("mqtts://broker.example/", SECURE),
        ("MQTT://Broker.Example:1884", Address("broker.example", 1884, tls=False)),
        ("mqtt://10.0.0.1:1", Address("10.0.0.1", 1, tls=False)),
        ("mqtts://[fe80::1]:8884", Address("fe80::1", 8884, tls=True)),
        ("mqtt://localhost", Address("localhost", 1883, tls=False)),
    ],
)
def test_urls(url: str, address: Address) -> None:
    assert parse_url(url) == address
    assert parse_url(str(address)) == address


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "must start with"),
        ("broker.example", "must start with"),
        ("broker.example:1883", "must start with"),
        ("tcp://broker.example", "must start with"),
        ("http://broker.example", "must start with"),
        ("mqtt://", "no valid host"),
        ("mqtt://:1883", "no valid host"),
        ("mqtt://a b", "no valid host"),
        ("mqtt://a..b", "no valid host"),
        ("mqtt://" + "a" * 64 + ".example", "no valid host"),
        ("mqtt://" + "a." * 127 + "example", "no valid host"),
        ("mqtt://[::1", "not one"),
        ("mqtt://broker.example:0", "from 1 to 65535"),
        ("mqtt://broker.example:65536", "not one"),
        ("mqtt://broker.example:port", "not one"),
        ("mqtt://broker.example/path", "no path"),
        ("mqtt://broker.example?x=1", "no path"),
        ("mqtt://broker.example#x", "no path"),
        ("mqtt://user:secret@broker.example", "must not hold a user or password"),
    ],
)
def test_urls_that_cannot_be_meant(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        parse_url(url)
    assert "secret" not in str(error.value)


def test_settings_that_do_not_fit_together() -> None:
    with pytest.raises(ValueError, match="no MQTT user name"):
        Broker(PLAIN, password_file=Path("password"))
    with pytest.raises(ValueError, match="both"):
        Broker(SECURE, cert_file=Path("cert"))
    with pytest.raises(ValueError, match="both"):
        Broker(SECURE, key_file=Path("key"))
    with pytest.raises(ValueError, match="say mqtts://"):
        Broker(PLAIN, ca_file=Path("ca"))


def test_the_password_is_read_from_its_file_each_time(tmp_path: Path) -> None:
    file = tmp_path / "password"
    broker = Broker(PLAIN, username="d1", password_file=file)
    file.write_text(" secret \n")
    assert broker.password() == " secret "
    file.write_text("other\r\n")
    assert broker.password() == "other"
    assert Broker(PLAIN, username="d1").password() is None
    file.unlink()
    with pytest.raises(OSError, match="password"):
        broker.password()


def test_the_tls_context_checks_both_certificate_and_name(tmp_path: Path) -> None:
    assert Broker(PLAIN).tls_context() is None
    (tmp_path / "ca.pem").write_bytes(Authority().pem)
    context = Broker(SECURE, ca_file=tmp_path / "ca.pem").tls_context()
    assert context is not None
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert len(context.get_ca_certs()) == 1


def test_tls_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"CA file .*gone\.pem"):
        Broker(SECURE, ca_file=tmp_path / "gone.pem").tls_context()
    (tmp_path / "bad.pem").write_text("nonsense")
    with pytest.raises(OSError, match=r"CA file .*bad\.pem"):
        Broker(SECURE, ca_file=tmp_path / "bad.pem").tls_context()
    certificate, _ = Authority().issue("d1")
    _, other_key = Authority().issue("d1")
    (tmp_path / "d1.pem").write_bytes(certificate)
    (tmp_path / "d1.key").write_bytes(other_key)
    with pytest.raises(OSError, match=r"client certificate .*d1\.pem and key .*d1\.key"):
        Broker(SECURE, cert_file=tmp_path / "d1.pem", key_file=tmp_path / "d1.key").tls_context()


def test_what_is_somewhat_too_large_still_arrives() -> None:
    assert Wants().maximum_packet_size == 2 * 1024 * 1024 + 64 * 1024
