"""What both servers are told: limits small enough that streams reach them."""

MAX_PAYLOAD = 2048
MAX_CONTROL_LINE = 512
MAX_SUBSCRIPTIONS = 6

CONFIGURATION = f"""
listen: 127.0.0.1:PORT
max_payload: {MAX_PAYLOAD}
max_control_line: {MAX_CONTROL_LINE}
max_subscriptions: {MAX_SUBSCRIPTIONS}
max_connections: 10000
"""
