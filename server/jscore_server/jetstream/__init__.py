"""JetStream's control half: models of the API, validation, assignments.

A request passes `decode` (hostile JSON into a model), `stream_config` / `consumer_config` (defaults and rules),
the meta group, and comes back through `models.encode_response`.
"""
