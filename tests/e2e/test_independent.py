"""Apps do not wait for each other: what goes wrong with one, or takes long, is nothing to the others."""

from tests.broker import free_ports
from tests.e2e.device import Device, app, service
from tests.e2e.host import Host

NOBODY = "127.0.0.1:1/nobody/nothing:1"
"""An image of a registry where none listens."""
STUBBORN = {"command": ["sh", "-c", "trap '' TERM; while :; do sleep 1; done"], "init": False}
GRACE_S = 20


def test_apps_in_trouble_and_a_slow_stop_must_delay_no_other_app(device: Device, host: Host, mark: str) -> None:
    (taken,) = free_ports(1)
    host.run(f"{mark}-holder", ports=[80], port_bindings={80: ("127.0.0.1", taken)})
    slow = service(**STUBBORN, stop_grace_period=f"{GRACE_S}s")
    device.start()
    device.publish({"good": app(one=service()), "slow": app(one=slow)})
    stubborn = device.identities()["slow/one"]

    published = device.cloud.publish(
        {
            "good": app(one=service(2)),
            "slow": app(one={**slow, "environment": {"RELEASE": "2"}}),
            "absent": app(one={"image": NOBODY}),
            "port": app(one=service(ports=[f"127.0.0.1:{taken}:80"])),
            "loop": app(one=service(command=["sh", "-c", "exit 3"])),
        }
    )
    device.cloud.wait_for_ack(
        device.id, verdict="applied", app="good", revision=published.revision, timeout=GRACE_S / 2
    )

    found = host.inspect(stubborn[0])
    assert found
    assert found["State"]["Running"], "the slow one is still being stopped"
    codes = {ack["app"]: ack["code"] for ack in device.acks(verdict="failed", revision=published.revision)}
    assert codes.keys() <= {"absent", "port", "loop"}
    device.cloud.wait_for_ack(
        device.id, verdict="applied", app="slow", revision=published.revision, timeout=3 * GRACE_S
    )
    told = {(ack["app"], ack["code"]) for ack in device.acks(verdict="failed", revision=published.revision)}
    assert {("absent", "registry_unreachable"), ("port", "port_in_use"), ("loop", "crash_loop")} <= told
    host.remove(f"{mark}-holder")
