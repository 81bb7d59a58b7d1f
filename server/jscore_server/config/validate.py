"""Checks of options against each other, after file and flags are merged. Pure."""

from __future__ import annotations

from ipaddress import ip_address

from .options import Options
from .schema import Warning
from .users import GLOBAL_ACCOUNT, SYSTEM_ACCOUNT, User
from .websocket import websocket_faults

__all__ = ["faults", "named_users", "warnings"]


def faults(options: Options) -> list[str]:
    """What forbids a start, one line each; with the place in the file where a key there is to blame."""
    found: list[str] = []

    def fault(text: str, *keys: str) -> None:
        place = next((options.places[key] for key in keys if key in options.places), None)
        found.append(f"{place}: {text}" if place else text)

    cluster, js = options.cluster, options.jetstream
    if options.lame_duck_grace_period >= options.lame_duck_duration:
        fault(
            f"lame duck grace period ({options.lame_duck_grace_period:g}s) should be strictly lower than "
            f"lame duck duration ({options.lame_duck_duration:g}s)",
            "lame_duck_grace_period",
            "lame_duck_duration",
        )
    if options.max_payload > options.max_pending:
        fault(
            f"max_payload ({options.max_payload}) cannot be higher than max_pending ({options.max_pending})",
            "max_payload",
            "max_pending",
        )
    if " " in options.server_name:
        fault("server name cannot contain spaces", "server_name")
    if " " in cluster.name:
        fault("cluster name cannot contain spaces", "cluster.name")
    if cluster.routes and not cluster.port and "cluster.routes" not in options.places:
        fault("solicited routes require cluster capabilities, e.g. --cluster")
    if any(c in ".*> \t" for c in js.domain):
        fault(f'expected a domain without ".", "*", ">" and spaces, got "{js.domain}"', "jetstream.domain")
    if cluster.port and (why := cluster.compression.fault()):
        fault(why, "cluster.compression")
    if js.enabled and cluster.port:
        # A replica is known by its server's name: a name that changes at every start would lose it its data.
        if not options.server_name:
            fault("jetstream cluster requires `server_name` to be set", "cluster", "jetstream")
        if not cluster.name:
            fault("jetstream cluster requires `cluster.name` to be set", "cluster", "jetstream")
    if cluster.port and cluster.discovery.key and not cluster.name:
        fault("cluster discovery requires `cluster.name` to be set", "cluster.discovery")
    found += account_faults(options)
    for text, key in websocket_faults(options.websocket):
        fault(text, key)
    if js.sync_interval != "always" and js.sync_interval <= 0:
        fault('expected "always" or a positive duration for "sync_interval"', "jetstream.sync_interval")
    return found


def account_faults(options: Options) -> list[str]:
    """Users and accounts that are named and not there."""
    found: list[str] = []
    users = named_users(options)
    if options.no_auth_user and not users:
        found.append(f'no_auth_user: "{options.no_auth_user}" present, but users/nkeys are not defined')
    elif options.no_auth_user and options.no_auth_user not in users:
        found.append(
            f'no_auth_user: "{options.no_auth_user}" not present as user or nkey in authorization block or account '
            "configuration"
        )
    web = options.websocket
    if web.port and web.no_auth_user and not users:
        found.append(f'no_auth_user: "{web.no_auth_user}" present, but users/nkeys are not defined')
    elif web.port and web.no_auth_user and web.no_auth_user not in users:
        found.append(
            f'no_auth_user: "{web.no_auth_user}" not present as user or nkey in authorization block or account '
            "configuration"
        )
    for what, given in (("username", web.user), ("token", web.token)):
        if web.port and users and given:
            found.append(f"websocket authentication {what} not compatible with presence of users/nkeys")
    known = {GLOBAL_ACCOUNT, SYSTEM_ACCOUNT, *options.accounts}
    if not options.no_system_account and options.system_account not in known:
        found.append("error resolving system account: account missing")
    system = options.accounts.get(options.system_account)
    if options.jetstream.enabled and system is not None and system.jetstream is not None:
        found.append("Not allowed to enable JetStream on the system account")
    return found


def named_users(options: Options) -> dict[str, User]:
    """Every user with a name, whichever block it stands in."""
    listed = [user for account in options.accounts.values() for user in account.users]
    return {user.name: user for user in listed + options.authorization.users}


def warnings(options: Options) -> list[Warning]:
    """What a start survives but the user should know."""
    found: list[Warning] = []
    cluster = options.cluster
    if cluster.routes and not cluster.port and "cluster.routes" in options.places:
        routes = options.places["cluster.routes"]
        found.append(Warning(f'{routes}: routes have no effect in a cluster without "listen": this server stays alone'))
    others = [url.host for url in cluster.routes if not is_loopback(url.host)]
    if cluster.port and others and is_loopback(cluster.host):
        listen = options.places.get("cluster.listen")
        place = listen or options.places.get("cluster.host")
        new = f'"listen: 0.0.0.0:{cluster.port}"' if listen else '"host: 0.0.0.0"'
        prefix = f"{place.file}:{place.line}: " if place else ""
        if not place:
            new = f"--cluster nats://0.0.0.0:{cluster.port}"
        text = f"cluster listens on {cluster.host}:{cluster.port}, which the routes' hosts cannot reach"
        found.append(Warning(f"{prefix}{text}: change it to {new}"))
    if options.max_payload > 8 << 20:
        text = f"max_payload of {options.max_payload} bytes is above 8 MB: large messages hold up all others"
        place = options.places.get("max_payload")
        found.append(Warning(f"{place}: {text}" if place else text))
    return found


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the host, as far as its name tells."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
