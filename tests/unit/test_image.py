"""A reference of a target and one that the engine lists are equal when they name the same image."""

import pytest

from device_agent.model.image import fits_platform, normalise, registry_of

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("reference", "normal"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1.27", "docker.io/library/nginx:1.27"),
        ("library/nginx", "docker.io/library/nginx:latest"),
        ("docker.io/nginx", "docker.io/library/nginx:latest"),
        ("index.docker.io/library/nginx:1", "docker.io/library/nginx:1"),
        ("user/app:2", "docker.io/user/app:2"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/app", "localhost:5000/app:latest"),
        ("localhost:5000/a/b:c", "localhost:5000/a/b:c"),
        ("registry.example/api", "registry.example/api:latest"),
        ("registry.example:5000/team/api:1", "registry.example:5000/team/api:1"),
        ("user.name/app", "user.name/app:latest"),
        ("[::1]:5000/app:1", "[::1]:5000/app:1"),
        (f"nginx@{DIGEST}", f"docker.io/library/nginx@{DIGEST}"),
        (f"nginx:1.27@{DIGEST}", f"docker.io/library/nginx@{DIGEST}"),
        (f"localhost:5000/app@{DIGEST}", f"localhost:5000/app@{DIGEST}"),
        (DIGEST, DIGEST),
    ],
)
def test_a_reference_in_full(reference, normal):
    assert normalise(reference) == normal


@pytest.mark.parametrize("reference", ["nginx", "user/app:2", "localhost:5000/app", f"nginx@{DIGEST}", DIGEST])
def test_what_is_normal_stays(reference):
    assert normalise(normalise(reference)) == normalise(reference)


@pytest.mark.parametrize(
    ("wanted", "has", "fits"),
    [
        ("linux/amd64", ("linux", "amd64", ""), True),
        ("linux/x86_64", ("linux", "amd64", ""), True),
        ("linux/arm64", ("linux", "amd64", ""), False),
        ("linux/arm64/v8", ("linux", "arm64", ""), True),
        ("linux/arm/v7", ("linux", "arm", "v6"), False),
        ("linux", ("linux", "arm64", ""), True),
        ("arm64", ("linux", "arm64", ""), True),
        ("arm64", ("linux", "amd64", ""), False),
        ("windows", ("linux", "amd64", ""), False),
        ("linux/arm64", ("", "", ""), True),
    ],
)
def test_the_platform_of_an_image(wanted, has, fits):
    assert fits_platform(wanted, *has) is fits


def test_its_registry():
    assert registry_of("nginx") == "docker.io"
    assert registry_of("registry.example:5000/a/b@sha256:x") == "registry.example:5000"
