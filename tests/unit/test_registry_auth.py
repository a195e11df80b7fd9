"""Docker's `config.json` as far as a device can use it; what it cannot is said without a word of the contents."""

import base64
import json
from pathlib import Path

import pytest

from device_agent.adapters.registry_auth import Login, RegistryAuth
from device_agent.cli.options import registry_auth
from device_agent.cli.settings import BadSetting, Settings

CANARY = "canary-9b1c"
AUTH = base64.b64encode(b"me:secret:with:colons").decode()


def saved(file: Path, document: object) -> RegistryAuth:
    file.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    return RegistryAuth(file)


@pytest.mark.parametrize(
    ("name", "registry"),
    [
        ("registry.example", "registry.example"),
        ("registry.example:5000", "registry.example:5000"),
        ("https://registry.example/v2/", "registry.example"),
        ("http://localhost:5000", "localhost:5000"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("docker.io", "docker.io"),
    ],
)
def test_a_registry_under_the_names_that_docker_writes(tmp_path, name, registry):
    auth = saved(tmp_path / "config.json", {"auths": {name: {"auth": AUTH}}})
    assert auth.login(registry) == Login("me", "secret:with:colons")
    assert auth.login("other.example") is None


@pytest.mark.parametrize(
    ("entry", "login"),
    [
        ({"username": "me", "password": "secret"}, Login("me", "secret")),
        ({"identitytoken": "t"}, Login(identity_token="t")),
        ({"auth": base64.b64encode(b"<token>:\0").decode(), "identitytoken": "t"}, Login("<token>", "", "t")),
        ({"auth": AUTH, "email": "me@example"}, Login("me", "secret:with:colons")),
    ],
)
def test_the_forms_of_credentials(tmp_path, entry, login):
    assert saved(tmp_path / "config.json", {"auths": {"r.example": entry}}).login("r.example") == login


def test_the_header_is_what_the_engine_reads():
    def read(login: Login, registry: str) -> object:
        return json.loads(base64.urlsafe_b64decode(login.header(registry)))

    assert read(Login("me", "s"), "r.example") == {"username": "me", "password": "s", "serveraddress": "r.example"}
    assert read(Login(identity_token="t"), "docker.io") == {
        "identitytoken": "t",
        "serveraddress": "https://index.docker.io/v1/",
    }


def test_nothing_of_it_is_shown():
    assert CANARY not in repr(Login("me", CANARY, CANARY))


def test_a_folder_of_files(tmp_path):
    saved(tmp_path / "a.json", {"auths": {"a.example": {"auth": AUTH}}})
    saved(tmp_path / "b.json", {"auths": {"b.example": {"auth": AUTH}}})
    (tmp_path / "notes.txt").write_text("not one of them", encoding="utf-8")
    assert RegistryAuth(tmp_path).logins().keys() == {"a.example", "b.example"}
    saved(tmp_path / "c.json", {"auths": {"https://b.example": {"auth": AUTH}}})
    with pytest.raises(ValueError, match=r"c\.json: another file of this folder has credentials for b\.example"):
        RegistryAuth(tmp_path).logins()


@pytest.mark.parametrize("document", [{}, {"auths": {}}, {"credHelpers": {}, "psFormat": "table"}])
def test_files_without_credentials(tmp_path, document):
    assert saved(tmp_path / "config.json", document).logins() == {}


def test_no_file_is_no_credentials():
    assert RegistryAuth().login("r.example") is None


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (f'{{"auths": {CANARY}', "it is not JSON"),
        ([CANARY], "it is no Docker config.json"),
        ({"credsStore": "desktop"}, "`credsStore` names a program"),
        ({"credHelpers": {"r.example": "ecr-login"}}, "`credHelpers` names a program"),
        ({"auths": [CANARY]}, "`auths` is not an object"),
        ({"auths": {"r.example": CANARY}}, "`auths` for r.example is not an object of strings"),
        ({"auths": {"r.example": {"password": 5}}}, "is not an object of strings"),
        ({"auths": {"r.example": {"auth": CANARY}}}, "`auth` is not the base64 of USER:PASSWORD"),
        ({"auths": {"r.example": {"auth": base64.b64encode(CANARY.encode()).decode()}}}, "is not the base64"),
        ({"auths": {"r.example": {"password": CANARY}}}, "there is neither"),
    ],
)
def test_what_cannot_be_used_is_named_without_its_contents(tmp_path, document, words):
    auth = saved(tmp_path / "config.json", document)
    with pytest.raises(ValueError, match=r"config\.json: ") as caught:
        auth.logins()
    assert words in str(caught.value)
    assert CANARY not in str(caught.value)
    assert base64.b64encode(CANARY.encode()).decode() not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="No such file"):
        RegistryAuth(tmp_path / "config.json").logins()


def test_what_cannot_be_used_stops_the_start_with_one_line(tmp_path):
    file = saved(tmp_path / "config.json", f'{{"auths": {CANARY}').path
    with pytest.raises(BadSetting) as caught:
        registry_auth(Settings(fleet="f", device_id="d", registry_auth=file))
    assert str(caught.value) == f"DEVICE_AGENT_REGISTRY_AUTH: {file}: it is not JSON"
