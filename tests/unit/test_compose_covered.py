"""Every key is tested twice, or this fails: how it may be written, and what the real engine then shows."""

from collections.abc import Callable
from pathlib import Path

from device_agent.model import compose_service
from device_agent.model.compose import Service
from tests.contract import test_compose_config as composes
from tests.contract import test_docker_engine as engines
from tests.contract import test_docker_host_keys as hosts
from tests.contract import test_engine as ports
from tests.unit import test_compose_host, test_compose_keys, test_compose_limits

SPELLED_ELSEWHERE = {
    "blkio_config": "test_compose_limits",
    "configs": "test_compose_files",
    "container_name": "test_compose_apps",
    "deploy": "test_compose_limits",
    "gpus": "test_compose_host",
    "links": "test_compose_together",
    "pull_policy": "test_compose_pulling",
    "pull_refresh_after": "test_compose_pulling",
    "secrets": "test_compose_files",
    "volumes_from": "test_compose_together",
    "x-state": "test_compose_keys",
    "x-update": "test_compose_keys",
}

SHOWN_ELSEWHERE: dict[str, Callable[..., None]] = {
    "annotations": hosts.test_annotations_where_the_engine_has_them,
    "blkio_devices": hosts.test_the_input_and_output_of_a_device_where_the_kernel_limits_it,
    "blkio_weight": hosts.test_the_weight_of_input_and_output_where_the_kernel_has_it,
    "container_name": ports.test_a_name_that_is_taken,
    "device_requests": hosts.test_devices_that_a_driver_chooses,
    "files": ports.test_files_are_mounted_read_only_each_where_it_is_wanted,
    "links": hosts.test_links_find_every_container_of_a_service_by_another_name,
    "networks": engines.test_networks_with_fixed_addresses_and_aliases,
    "platform": hosts.test_the_platform,
    "scale": ports.test_of_several_containers_of_a_service_each_is_known,
    "storage_opt": hosts.test_storage_options_reach_the_engine_which_refuses_one_that_it_does_not_know,
    "volumes": engines.test_mounts,
    "volumes_from": composes.test_the_container_that_compose_creates_is_what_we_say,
}

OF_THE_AGENT = {"depends_on", "pull_policy", "pull_refresh_after", "state", "update"}
"""What a container has nothing of: it is for the planner, whose tests are elsewhere."""


def test_how_every_key_may_be_written_is_in_a_table():
    tables = (test_compose_keys.SAME, test_compose_limits.SAME, test_compose_host.SAME)
    assert {row[0] for table in tables for row in table} | SPELLED_ELSEWHERE.keys() == compose_service._SERVICE.keys()
    for key, module in SPELLED_ELSEWHERE.items():
        assert f'"{key}"' in Path(__file__).with_name(f"{module}.py").read_text(), f"{module} says nothing of {key}"


def test_what_the_engine_shows_of_every_key_is_tested():
    shown = {key for table in (engines.KEYS, hosts.KEYS) for keys, _ in table for key in keys}
    assert shown | SHOWN_ELSEWHERE.keys() | OF_THE_AGENT == Service.model_fields.keys()
    assert shown.isdisjoint(SHOWN_ELSEWHERE | dict.fromkeys(OF_THE_AGENT))
