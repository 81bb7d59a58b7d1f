"""The two versions this server reports."""

VERSION = "0.1.0"
"""Version of jscore itself."""

NATS_VERSION = "2.14.5"
"""Version of nats-server whose protocol and behaviour this server follows; clients see it in INFO."""
