"""Settings: read once, from the environment over a file over defaults; what is wrong is named in one line."""

import os
from pathlib import Path

import pytest

from device_agent.cli.options import own
from device_agent.cli.settings import PREFIX, BadSetting, Settings, load, load_policy, sources
from device_agent.core.policy import ENGINE_SOCKETS, RULES, Policy

NEEDED = {"DEVICE_AGENT_FLEET": "plant7", "DEVICE_AGENT_DEVICE_ID": "d1"}


@pytest.fixture
def environment(monkeypatch):
    """Sets these, and these only; pydantic reads the process's own."""
    for name in list(os.environ):
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)

    def put(**values: str) -> dict[str, str]:
        wanted = NEEDED | {PREFIX + name.upper(): value for name, value in values.items()}
        for name, value in wanted.items():
            monkeypatch.setenv(name, value)
        return wanted

    return put


def test_defaults(environment):
    made = load(environment())
    assert (made.fleet, made.device_id) == ("plant7", "d1")
    assert made.model_dump(exclude={"fleet", "device_id"}) == {
        "mqtt_url": "mqtt://localhost:1883",
        "mqtt_version": "5",
        "mqtt_username": None,
        "mqtt_password_file": None,
        "mqtt_ca_file": None,
        "mqtt_cert_file": None,
        "mqtt_key_file": None,
        "mqtt_keepalive": 60,
        "mqtt_session_expiry": 3600,
        "mqtt_will_delay": 30,
        "topic_root": "fleet/v1",
        "data_dir": Path("/app/data"),
        "control_socket": Path("/run/device-agent/control.sock"),
        "engine_url": "unix:///var/run/docker.sock",
        "name_prefix": "",
        "trusted_keys": None,
        "signature_threshold": 1,
        "commands": None,
        "unsigned_commands": None,
        "policy_file": None,
        "registry_auth": None,
        "disk_reserve": "10%",
        "target_max_bytes": 1024 * 1024,
        "target_max_inflated_bytes": 8 * 1024 * 1024,
        "log_level": "info",
        "log_format": None,
        "config_file": None,
    }


GIVEN = {
    "mqtt_url": ("mqtts://broker.example:8884", "mqtts://broker.example:8884"),
    "mqtt_version": ("3.1.1", "3.1.1"),
    "mqtt_username": ("d1", "d1"),
    "mqtt_keepalive": ("30", 30),
    "mqtt_session_expiry": ("0", 0),
    "mqtt_will_delay": ("0", 0),
    "topic_root": ("a/b", "a/b"),
    "data_dir": ("/data", Path("/data")),
    "control_socket": ("/c.sock", Path("/c.sock")),
    "engine_url": ("tcp://localhost:2375", "tcp://localhost:2375"),
    "name_prefix": ("dev1-", "dev1-"),
    "commands": ("report, plan", "report, plan"),
    "unsigned_commands": ("none", "none"),
    "trusted_keys": ("/keys", Path("/keys")),
    "signature_threshold": ("1", 1),
    "policy_file": ("/p.toml", Path("/p.toml")),
    "disk_reserve": ("1g", "1g"),
    "registry_auth": ("/config.json", Path("/config.json")),
    "target_max_bytes": ("2048", 2048),
    "target_max_inflated_bytes": ("4096", 4096),
    "log_level": ("debug", "debug"),
    "log_format": ("console", "console"),
}
WITH = {"unsigned_commands": {"trusted_keys": "/keys"}}
"""What makes sense only beside another one."""


@pytest.mark.parametrize("name", GIVEN)
def test_every_setting_is_read_from_the_environment(environment, name):
    text, value = GIVEN[name]
    assert getattr(load(environment(**{name: text}, **WITH.get(name, {}))), name) == value


@pytest.mark.parametrize("name", GIVEN)
def test_every_setting_is_read_from_the_file(environment, tmp_path, name):
    text, value = GIVEN[name]
    file = tmp_path / "agent.toml"
    file.write_text(f"{name} = {text if isinstance(value, int) else repr(text)}\n")
    assert getattr(load(environment(config_file=str(file), **WITH.get(name, {}))), name) == value


def test_every_setting_is_tested():
    files = {"mqtt_password_file", "mqtt_ca_file", "mqtt_cert_file", "mqtt_key_file", "config_file"}
    assert set(GIVEN) | {"fleet", "device_id"} | files == set(Settings.model_fields)


def test_files_of_the_broker_that_are_there(environment, tmp_path):
    for name in ("password", "ca", "cert", "key"):
        (tmp_path / name).write_text("x")
    given = {f"mqtt_{name}_file": str(tmp_path / name) for name in ("password", "ca", "cert", "key")}
    made = load(environment(mqtt_url="mqtts://b", mqtt_username="d1", **given))
    assert {str(getattr(made, name)) for name in given} == set(given.values())


def test_the_environment_outweighs_the_file(environment, tmp_path):
    file = tmp_path / "agent.toml"
    file.write_text("topic_root = 'file'\nlog_level = 'debug'\n")
    values = environment(config_file=str(file), topic_root="env")
    made = load(values)
    assert (made.topic_root, made.log_level) == ("env", "debug")
    table = sources(made, values)
    assert table["DEVICE_AGENT_TOPIC_ROOT"] == ("env", "environment")
    assert table["DEVICE_AGENT_LOG_LEVEL"] == ("debug", "file")
    assert table["DEVICE_AGENT_MQTT_VERSION"] == ("5", "default")
    assert set(table) == {PREFIX + name.upper() for name in Settings.model_fields}


def test_an_empty_variable_is_as_none(environment):
    assert load(environment(topic_root="", mqtt_username="")).topic_root == "fleet/v1"


def test_a_variable_of_the_compose_file_is_none_of_ours(environment):
    assert load(environment(image="device-agent:1")).fleet == "plant7"


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"fleet": "Plant 7"}, "DEVICE_AGENT_FLEET: fleet 'Plant 7' is not an id"),
        ({"device_id": "d_1"}, "DEVICE_AGENT_DEVICE_ID: device id 'd_1' is not an id"),
        ({"fleet": ""}, "DEVICE_AGENT_FLEET is required"),
        ({"mqtt_version": "4"}, "DEVICE_AGENT_MQTT_VERSION"),
        ({"mqtt_keepalive": "0"}, "DEVICE_AGENT_MQTT_KEEPALIVE"),
        ({"mqtt_keepalive": "soon"}, "DEVICE_AGENT_MQTT_KEEPALIVE"),
        ({"topic_root": "a//b"}, "DEVICE_AGENT_TOPIC_ROOT"),
        ({"topic_root": "a/#"}, "DEVICE_AGENT_TOPIC_ROOT"),
        ({"engine_url": "/var/run/docker.sock"}, "DEVICE_AGENT_ENGINE_URL"),
        ({"commands": "report,dance"}, "DEVICE_AGENT_COMMANDS: 'dance' is not a command: report, plan, "),
        ({"unsigned_commands": "dance", "trusted_keys": "/keys"}, "DEVICE_AGENT_UNSIGNED_COMMANDS: 'dance' is not"),
        ({"unsigned_commands": "report"}, "DEVICE_AGENT_UNSIGNED_COMMANDS is set, and DEVICE_AGENT_TRUSTED_KEYS is"),
        ({"name_prefix": "-x"}, "DEVICE_AGENT_NAME_PREFIX"),
        *(({"disk_reserve": text}, "DEVICE_AGENT_DISK_RESERVE: expected a share") for text in ("much", "100%", "-1%")),
        ({"log_level": "loud"}, "DEVICE_AGENT_LOG_LEVEL"),
        ({"target_max_bytes": "1"}, "DEVICE_AGENT_TARGET_MAX_BYTES"),
        ({"signature_threshold": "0"}, "DEVICE_AGENT_SIGNATURE_THRESHOLD"),
        ({"signature_threshold": "2"}, "SIGNATURE_THRESHOLD"),
        ({"mqtt_url": "http://x"}, "MQTT_URL"),
        ({"mqtt_rul": "mqtt://x"}, "DEVICE_AGENT_MQTT_RUL is not a setting: did you mean DEVICE_AGENT_MQTT_URL?"),
        ({"zzz": "1"}, "DEVICE_AGENT_ZZZ is not a setting"),
        ({"config_file": "/nowhere.toml"}, "DEVICE_AGENT_CONFIG_FILE: /nowhere.toml: No such file"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(environment, values, line):
    with pytest.raises(BadSetting) as bad:
        load(environment(**values))
    assert line in str(bad.value)
    assert "\n" not in str(bad.value)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("log_levle = 'info'", "log_levle is not a setting: did you mean log_level?"),
        ("log_level = 'loud'", "log_level in "),
        ("log_level = ", "DEVICE_AGENT_CONFIG_FILE: "),
        ("[mqtt]\nurl = 'x'", "mqtt is not a setting"),
    ],
)
def test_what_is_wrong_in_the_file_is_named_with_the_file(environment, tmp_path, content, line):
    file = tmp_path / "agent.toml"
    file.write_text(content)
    with pytest.raises(BadSetting) as bad:
        load(environment(config_file=str(file)))
    assert line in str(bad.value)
    assert str(file) in str(bad.value)


# The policy's file.


def test_no_policy_file_is_the_strict_policy():
    assert load_policy(None) == Policy()


def test_a_policy_is_read(tmp_path):
    file = tmp_path / "policy.toml"
    file.write_text("privileged = true\nbinds = ['/srv']\nregistries = ['r.example']\ndigests_only = true\n")
    assert load_policy(file) == Policy(privileged=True, binds=("/srv",), registries=("r.example",), digests_only=True)


def test_the_sums_of_a_policy_have_the_units_of_compose(tmp_path):
    file = tmp_path / "policy.toml"
    file.write_text("memory_max = '2g'\ncpus_max = 2.5\n")
    assert load_policy(file) == Policy(memory_max=2 * 2**30, cpus_max=2_500_000_000)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("privilged = true", "privilged is not of a policy: did you mean privileged?"),
        ("privileged = 'yes'", "privileged must be true or false"),
        ("binds = '/srv'", "binds must be a list of strings"),
        ("binds = [1]", "binds must be a list of strings"),
        ("binds = true", "binds must be "),
        ("memory_max = '2x'", "memory_max: expected a size"),
        ("memory_max = true", "memory_max: expected a whole number"),
        ("cpus_max = 'many'", "cpus_max: expected a number of CPUs"),
        ("=", "POLICY_FILE"),
    ],
)
def test_a_policy_that_is_wrong_is_never_half_read(tmp_path, content, line):
    file = tmp_path / "policy.toml"
    file.write_text(content)
    with pytest.raises(BadSetting) as bad:
        load_policy(file)
    assert line in str(bad.value)


def test_a_policy_file_that_is_missing_is_an_error(tmp_path):
    with pytest.raises(BadSetting, match="No such file"):
        load_policy(tmp_path / "nowhere.toml")


def test_every_rule_of_the_policy_can_be_said_in_the_file(tmp_path):
    for name, default in RULES.items():
        file = tmp_path / f"{name}.toml"
        forms = {bool: "true", tuple: "[]", type(None): '"1.5"'}
        file.write_text(f"{name} = {forms[type(default)]}")
        load_policy(file)


def test_what_the_settings_name_is_the_agents_own(environment):
    known = own(load(environment(data_dir="/srv/agent", policy_file="/etc/policy.toml")))
    assert {"/srv/agent", "/etc/policy.toml", "/run/device-agent/control.sock"} <= known.paths
    assert "device-agent-data" in known.volumes
    assert not known.paths & set(ENGINE_SOCKETS), "they have a rule of their own"
    elsewhere = own(load(environment(engine_url="unix:///run/user/1000/docker.sock")))
    assert "/run/user/1000/docker.sock" in elsewhere.paths
