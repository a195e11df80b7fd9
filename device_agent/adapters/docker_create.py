"""From a step to the engine's JSON: what Docker Compose would send for the same keys. Pure.

Labels of the agent outweigh the service's. Further networks of a container are steps of their own: before API 1.44 the
engine takes only one here. What an engine is too old for and Compose leaves out for it (`annotations`) is left out
here, too, and so is a `start_interval`: `left_out` tells.
"""

import math
from dataclasses import replace

from device_agent.adapters.docker_files import file_mounts
from device_agent.adapters.docker_mounts import Body, given, mounts
from device_agent.model.compose import DeviceLimit, DeviceRequest, Healthcheck, IpamConfig, Port, Service
from device_agent.model.steps import Create, CreateNetwork, Endpoint

_NS = 1_000_000_000
_SYSTEM_PATHS = "systempaths=unconfined"
MAC_OF_ENDPOINT = (1, 44)
"""Before, a container has one MAC address, that of its first network."""
_ANNOTATIONS, _START_INTERVAL = (1, 43), (1, 44)


def left_out(create: Create, api: tuple[int, int]) -> list[str]:
    """What this engine is too old for and the container can be without."""
    check = create.service.healthcheck
    found: list[str] = []
    if check and check.start_interval and api < _START_INTERVAL:
        found.append("healthcheck.start_interval (it takes API 1.44)")
    if create.service.annotations and api < _ANNOTATIONS:
        found.append("annotations (it takes API 1.43)")
    return found


def container_body(create: Create, api: tuple[int, int], source: str = "") -> Body:
    """The body of `POST /containers/create` for an engine that speaks version `api`.

    `source`: where the engine has the volume with its files.
    """
    service = create.service
    body: Body = {
        "Image": create.image,
        "Labels": {**service.labels, **create.labels},
        "StopTimeout": math.ceil(service.stop_grace_period / _NS),
        "HostConfig": _host_config(create, api, source),
    }
    given(
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
        given(body, MacAddress=first.mac_address)
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


def _endpoint(endpoint: Endpoint) -> Body:
    body: Body = {}
    addresses: Body = {}
    given(addresses, IPv4Address=endpoint.ipv4_address, IPv6Address=endpoint.ipv6_address)
    given(
        body,
        Aliases=list(endpoint.aliases) or None,
        IPAMConfig=addresses or None,
        MacAddress=endpoint.mac_address,
        Links=[f"{name}:{other}" for name, other in endpoint.links] or None,
    )
    return body


def _host_config(create: Create, api: tuple[int, int], source: str) -> Body:
    service = create.service
    host: Body = {
        "NetworkMode": create.network_mode,
        "RestartPolicy": {"Name": service.restart.policy, "MaximumRetryCount": service.restart.max_retries},
    }
    given(
        host,
        Init=service.init,
        PortBindings=_port_bindings(service.ports) or None,
        **mounts((*create.mounts, *file_mounts(create, source)), api),
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
        Annotations=dict(service.annotations) or None if api >= _ANNOTATIONS else None,
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
        **{_BLKIO[key][0]: _block_devices(_BLKIO[key][1], limits) for key, limits in service.blkio_devices.items()},
    }


_BLKIO = {
    "weight_device": ("BlkioWeightDevice", "Weight"),
    "device_read_bps": ("BlkioDeviceReadBps", "Rate"),
    "device_read_iops": ("BlkioDeviceReadIOps", "Rate"),
    "device_write_bps": ("BlkioDeviceWriteBps", "Rate"),
    "device_write_iops": ("BlkioDeviceWriteIOps", "Rate"),
}


def _block_devices(what: str, limits: tuple[DeviceLimit, ...]) -> list[Body]:
    return [{"Path": device.path, what: device.limit} for device in limits]


def _device_request(request: DeviceRequest) -> Body:
    return {
        "Driver": request.driver or "",
        "Count": request.count or 0,
        "DeviceIDs": list(request.device_ids),
        "Capabilities": [list(request.capabilities)],
        "Options": dict(request.options),
    }


def _list(words: tuple[str, ...] | None) -> list[str] | None:
    return None if words is None else list(words)


def _healthcheck(check: Healthcheck | None, api: tuple[int, int]) -> Body | None:
    if check is None:
        return None
    body: Body = {}
    given(
        body,
        Test=_list(check.test),
        Interval=check.interval,
        Timeout=check.timeout,
        StartPeriod=check.start_period,
        StartInterval=check.start_interval if api >= _START_INTERVAL else None,
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
        given(
            body,
            Subnet=pool.subnet,
            IPRange=pool.ip_range,
            Gateway=pool.gateway,
            AuxiliaryAddresses=dict(pool.aux_addresses) or None,
        )
        pools.append(body)
    result: Body = {"Driver": ipam.driver or "default", "Config": pools}
    given(result, Options=dict(ipam.options) or None)
    return result
