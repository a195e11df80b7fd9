"""Certificates: expired, replaced, of somebody else, and looked at with a wrong clock."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from tests.certificates import Authority
from tests.eventually import eventually
from tests.faults.bench import Bench
from tests.faults.clock_faults import start_with
from tests.faults.fault import fault

GROUP = "certificate"
WITHIN_S = 90.0
"""An unreachable broker is tried again after up to a minute."""
LONG_AGO = timedelta(days=30)


def _secure(bench: Bench, *, device: datetime | None = None) -> dict[str, str]:
    """The settings for TLS, with a certificate for the device that was made now, or at another time."""
    url = f"mqtts://127.0.0.1:{bench.broker.tls_port}"
    return {"MQTT_URL": url, **bench.certificates.equip(bench.device.folder, made=device)}


def _back_to_plain(bench: Bench) -> None:
    bench.kill()
    bench.certificates.serve()
    bench.broker.reload()
    bench.restart()


def _unreachable(bench: Bench, settings: dict[str, str], mended: Callable[[], object]) -> None:
    """Kept out until it is mended; then in, without a restart, and what ran meanwhile runs on."""
    before = bench.device.identities()
    bench.kill()
    bench.restart(**settings)
    bench.local_convergence(20)
    bench.somewhere(4)
    status = bench.status()
    assert status, "live: it does not answer"
    assert not status["connected"], "it was let in"
    assert "certificate" in bench.device.log(), "truthful: the log does not say what is wrong"
    assert bench.device.identities() == before, "fail-static: something was touched for want of a broker"
    process, restarts = bench.pid, len(bench.exits)
    mended()
    bench.publish()
    bench.converge(WITHIN_S)
    assert (bench.pid, len(bench.exits)) == (process, restarts), "live: it took a restart"
    _back_to_plain(bench)
    bench.publish()


@fault("the device's certificate has expired, and is renewed", GROUP)
def expired(bench: Bench) -> None:
    settings = _secure(bench, device=datetime.now(UTC) - LONG_AGO)
    _unreachable(bench, settings, lambda: bench.certificates.equip(bench.device.folder))


@fault("the broker's certificate has expired, and is renewed", GROUP)
def broker_expired(bench: Bench) -> None:
    settings = _secure(bench)
    bench.certificates.serve(made=datetime.now(UTC) - LONG_AGO)
    bench.broker.reload()

    def renew() -> None:
        bench.certificates.serve()
        bench.broker.reload()

    _unreachable(bench, settings, renew)


@fault("the broker shows the certificate of another authority", GROUP)
def foreign(bench: Bench) -> None:
    settings = _secure(bench)
    bench.certificates.serve(authority=Authority("somebody else"))
    bench.broker.reload()

    def mend() -> None:
        bench.certificates.serve()
        bench.broker.reload()

    _unreachable(bench, settings, mend)


@fault("all certificates replaced while it is connected", GROUP)
def rotated(bench: Bench) -> None:
    bench.lossy = True
    bench.kill()
    bench.restart(**_secure(bench))
    bench.converge(30)
    session = bench.device.session
    bench.certificates.serve()
    bench.certificates.equip(bench.device.folder)
    bench.broker.reload()
    bench.publish()
    bench.broker.restart()
    eventually(lambda: bench.device.session > session, WITHIN_S, "it is online again")
    bench.converge(30)
    _back_to_plain(bench)
    bench.publish()


@fault("booted in 1970, with certificates", GROUP)
def in_1970(bench: Bench) -> None:
    clock = start_with(bench, "@1970-01-02 00:00:00", **_secure(bench))
    bench.publish()
    bench.local_convergence(20)
    bench.somewhere(3)
    clock.set("+0")
    bench.converge(WITHIN_S)
    _back_to_plain(bench)
    bench.publish()
