"""From a step to the engine's JSON: what Docker Compose would send for the same keys. Pure.

Two choices of ours. A named or anonymous volume is a mount (it takes every option); a bind mount whose host path is to
be made when it is missing is a bind, because that is what makes the path on every engine. Labels of the agent outweigh
the service's. Further networks of a container are steps of their own: before API 1.44 the engine takes only one here.
What an engine is too old for and Compose leaves out for it (`start_interval`, `annotations`) is left out here, too.
"""

import io
import math
import tarfile
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from device_agent.model.compose import DeviceRequest, File, Healthcheck, IpamConfig, Mount, Port, Service
from device_agent.model.steps import Create, CreateNetwork, Endpoint

Body = dict[str, Any]

_NS = 1_000_000_000
_SYSTEM_PATHS = "systempaths=unconfined"
MAC_OF_ENDPOINT = (1, 44)
"""Before, a container has one MAC address, that of its first network."""


def container_body(create: Create, api: tuple[int, int]) -> Body:
    """The body of `POST /containers/create` for an engine that speaks version `api`."""
    service = create.service
    body: Body = {
        "Image": create.image,
        "Labels": {**service.labels, **create.labels},
        "StopTimeout": math.ceil(service.stop_grace_period / _NS),
        "HostConfig": _host_config(create, api),
    }
    _given(
        body,
        Cmd=_list(service.command),
        Entrypoint=_list(service.entrypoint),
        Env=[f"{name}={value}" for name, value in service.environment.items()] or None,
        Hostname=service.hostname,
        User=service.user,
        WorkingDir=service.working_dir,
        StopSignal=service.stop_signal,
        Healthcheck=_healthcheck(service.healthcheck, api),
        ExposedPorts={port: {} for port in (*map(_port_key, service.ports), *service.expose)} or None,
        Domainname=service.domainname,
        Tty=service.tty or None,
        OpenStdin=service.stdin_open or None,
    )
    first = create.endpoints[0] if create.endpoints else None
    if first is None and service.mac_address:
        first = Endpoint(create.network_mode, mac_address=service.mac_address)
    if first and api < MAC_OF_ENDPOINT:
        _given(body, MacAddress=first.mac_address)
        first = replace(first, mac_address=None) if create.endpoints else None
    if first:
        body["NetworkingConfig"] = {"EndpointsConfig": {first.network: _endpoint(first)}}
    return body


def network_arguments(network: CreateNetwork) -> Body:
    """The arguments of the SDK's `create_network`. Before API 1.44 only `check_duplicate` keeps a name unique."""
    return {
        "name": network.name,
        "driver": network.driver,
        "options": dict(network.driver_opts),
        "ipam": _ipam(network.ipam),
        "check_duplicate": True,
        "internal": network.internal,
        "labels": dict(network.labels),
        "enable_ipv6": network.enable_ipv6,
        "attachable": network.attachable,
    }


def archive(files: Iterable[File]) -> bytes:
    """A tar of files. The engine makes the folders that are missing, and leaves those alone that are there."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for file in files:
            content = file.content.encode()
            header = tarfile.TarInfo(file.target.lstrip("/"))
            header.size, header.mode, header.uid, header.gid = len(content), file.mode, file.uid, file.gid
            tar.addfile(header, io.BytesIO(content))
    return written.getvalue()


def _endpoint(endpoint: Endpoint) -> Body:
    body: Body = {}
    addresses: Body = {}
    _given(addresses, IPv4Address=endpoint.ipv4_address, IPv6Address=endpoint.ipv6_address)
    _given(
        body,
        Aliases=list(endpoint.aliases) or None,
        IPAMConfig=addresses or None,
        MacAddress=endpoint.mac_address,
        Links=[f"{name}:{other}" for name, other in endpoint.links] or None,
    )
    return body


def _host_config(create: Create, api: tuple[int, int]) -> Body:
    service = create.service
    mounts = [mount for mount in create.mounts if not _as_bind(mount)]
    host: Body = {
        "NetworkMode": create.network_mode,
        "RestartPolicy": {"Name": service.restart.policy, "MaximumRetryCount": service.restart.max_retries},
    }
    _given(
        host,
        Init=service.init,
        PortBindings=_port_bindings(service.ports) or None,
        Binds=[_bind(mount) for mount in create.mounts if _as_bind(mount)] or None,
        Mounts=[_mount(mount, api) for mount in mounts] or None,
        Tmpfs=dict(_tmpfs(entry) for entry in service.tmpfs) or None,
        NanoCpus=service.cpus,
        Memory=service.mem_limit,
        ShmSize=service.shm_size,
        CapAdd=list(service.cap_add) or None,
        CapDrop=list(service.cap_drop) or None,
        Privileged=service.privileged or None,
        ReadonlyRootfs=service.read_only or None,
        Devices=_devices(service) or None,
        ExtraHosts=list(service.extra_hosts) or None,
        Dns=list(service.dns) or None,
        Sysctls=dict(service.sysctls) or None,
        Ulimits=[{"Name": n, "Soft": u.soft, "Hard": u.hard} for n, u in service.ulimits.items()] or None,
        LogConfig=_log_config(service),
        Annotations=dict(service.annotations) or None if api >= (1, 43) else None,
        GroupAdd=list(service.group_add) or None,
        DnsOptions=list(service.dns_opt) or None,
        DnsSearch=list(service.dns_search) or None,
        StorageOpt=dict(service.storage_opt) or None,
        **_isolation(create),
        **_limits(service),
    )
    return host


def _isolation(create: Create) -> Body:
    service = create.service
    options = [option for option in service.security_opt if option != _SYSTEM_PATHS]
    # `systempaths` is a word of the clients: the engine is told which paths to hide, and here it is none.
    hidden: list[str] | None = [] if _SYSTEM_PATHS in service.security_opt else None
    return {
        "Runtime": service.runtime,
        "SecurityOpt": options or None,
        "MaskedPaths": hidden,
        "ReadonlyPaths": hidden,
        "UsernsMode": service.userns_mode,
        "PidMode": create.pid,
        "IpcMode": create.ipc,
        "UTSMode": service.uts,
        "CgroupnsMode": service.cgroup,
        "CgroupParent": service.cgroup_parent,
        "DeviceCgroupRules": list(service.device_cgroup_rules) or None,
        "DeviceRequests": [_device_request(request) for request in service.device_requests] or None,
    }


def _limits(service: Service) -> Body:
    return {
        "CpuShares": service.cpu_shares,
        "CpuQuota": service.cpu_quota,
        "CpuPeriod": service.cpu_period,
        "CpusetCpus": service.cpuset,
        "MemoryReservation": service.mem_reservation,
        "MemorySwap": service.memswap_limit,
        "MemorySwappiness": service.mem_swappiness,
        "OomKillDisable": service.oom_kill_disable or None,
        "OomScoreAdj": service.oom_score_adj or None,
        "PidsLimit": service.pids_limit,
        "BlkioWeight": service.blkio_weight,
    }


def _device_request(request: DeviceRequest) -> Body:
    return {
        "Driver": request.driver or "",
        "Count": request.count or 0,
        "DeviceIDs": list(request.device_ids),
        "Capabilities": [list(request.capabilities)],
        "Options": dict(request.options),
    }


def _given(body: Body, **values: object) -> None:
    """Only what is given: what is left out is the engine's or the image's to choose."""
    body.update({key: value for key, value in values.items() if value is not None})


def _list(words: tuple[str, ...] | None) -> list[str] | None:
    return None if words is None else list(words)


def _healthcheck(check: Healthcheck | None, api: tuple[int, int]) -> Body | None:
    if check is None:
        return None
    body: Body = {}
    _given(
        body,
        Test=_list(check.test),
        Interval=check.interval,
        Timeout=check.timeout,
        StartPeriod=check.start_period,
        StartInterval=check.start_interval if api >= (1, 44) else None,
        Retries=check.retries,
    )
    return body


def _port_key(port: Port) -> str:
    return f"{port.target}/{port.protocol}"


def _port_bindings(ports: tuple[Port, ...]) -> Body:
    bindings: dict[str, list[dict[str, str]]] = {}
    for port in ports:
        binding = {"HostIp": port.host_ip or "", "HostPort": port.published or ""}
        bindings.setdefault(_port_key(port), []).append(binding)
    return bindings


def _as_bind(mount: Mount) -> bool:
    """A bind makes the host path, and a bind alone can relabel. A colon cannot be written in one: that is a mount."""
    wanted = mount.create_host_path or mount.selinux is not None
    return mount.type == "bind" and wanted and ":" not in f"{mount.source}{mount.target}"


def _bind(mount: Mount) -> str:
    options = ("ro" if mount.read_only else "rw", mount.selinux, mount.propagation)
    return f"{mount.source}:{mount.target}:{','.join(option for option in options if option)}"


def _mount(mount: Mount, api: tuple[int, int]) -> Body:
    body: Body = {"Type": mount.type, "Target": mount.target}
    _given(body, Source=mount.source, ReadOnly=mount.read_only or None)
    options: Body = {}
    match mount.type:
        case "volume":
            _given(options, NoCopy=mount.nocopy or None)
            _given(body, VolumeOptions=options or None)
        case "bind":
            create = mount.create_host_path and api >= (1, 42)
            _given(options, Propagation=mount.propagation, CreateMountpoint=create or None)
            _given(body, BindOptions=options or None)
        case "tmpfs":
            _given(options, SizeBytes=mount.tmpfs_size, Mode=mount.tmpfs_mode)
            _given(body, TmpfsOptions=options or None)
    return body


def _tmpfs(entry: str) -> tuple[str, str]:
    path, _, options = entry.partition(":")
    return path, options


def _devices(service: Service) -> list[dict[str, str]]:
    return [
        {"PathOnHost": d.source, "PathInContainer": d.target, "CgroupPermissions": d.permissions}
        for d in service.devices
    ]


def _log_config(service: Service) -> Body | None:
    if service.logging is None:
        return None
    return {"Type": service.logging.driver or "", "Config": dict(service.logging.options)}


def _ipam(ipam: IpamConfig | None) -> Body | None:
    if ipam is None:
        return None
    pools: list[Body] = []
    for pool in ipam.config:
        body: Body = {}
        _given(
            body,
            Subnet=pool.subnet,
            IPRange=pool.ip_range,
            Gateway=pool.gateway,
            AuxiliaryAddresses=dict(pool.aux_addresses) or None,
        )
        pools.append(body)
    result: Body = {"Driver": ipam.driver or "default", "Config": pools}
    _given(result, Options=dict(ipam.options) or None)
    return result
