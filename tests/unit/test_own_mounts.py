"""The agent finds its own files on the host: lines of a container's `/proc/self/mountinfo`, as Docker makes them."""

from pathlib import Path

from device_agent.adapters.own_mounts import own_places

CONTAINER = r"""
1308 800 0:287 / / rw,relatime master:49 - overlay overlay rw
1310 1308 0:369 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755
1434 1308 254:0 /var/lib/docker/volumes/edge_state/_data /app/data rw,relatime master:1 - ext4 /dev/vda rw
1437 1308 254:0 /home/agent\040keys /etc/keys ro,relatime - ext4 /dev/vda rw
1442 1308 0:462 / /run/device-agent rw,nosuid,nodev,noexec,relatime - tmpfs tmpfs rw
""".strip()


def test_in_a_container_they_are_in_a_volume_or_on_the_host():
    files = [Path("/app/data"), Path("/etc/keys/a.pub")]
    volumes, paths = own_places(files, CONTAINER)
    assert volumes == {"edge_state"}
    there = {"/var/lib/docker/volumes/edge_state/_data", "/home/agent keys/a.pub"}
    assert paths == {*map(str, files), *there}


def test_of_another_disk_only_the_volume_is_known():
    volumes, _ = own_places([Path("/app/data/x")], CONTAINER.replace("/var/lib/docker/volumes", "/docker/volumes"))
    assert volumes == {"edge_state"}


def test_what_is_mounted_over_is_not_seen():
    again = "\n1500 1308 254:0 /var/lib/docker/volumes/newer/_data /app/data rw - ext4 /dev/vda rw"
    assert own_places([Path("/app/data")], CONTAINER + again)[0] == {"newer"}


def test_without_a_container_they_are_where_they_are(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    volumes, paths = own_places([tmp_path / "link"], "")
    assert volumes == frozenset()
    assert paths == {str(tmp_path / "link"), str(tmp_path / "real")}
