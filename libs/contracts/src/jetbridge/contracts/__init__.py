"""
Everything two Jetbridge processes must agree on: message bodies, subjects, records, HTTP bodies.

This package imports nothing of ours and nothing but msgspec, so that any service can depend on it.

* ``envelope``: the frame around every message on the bus, decoded in two steps.
* ``messages``: bodies of bus messages. ``records``: values in the KV buckets.
* ``rpc``: request and reply between the plane's processes and the bridge.
* ``api``: bodies of the Remote Execution API. ``problems``: its errors.
* ``dag_processing``: bodies about Dag bundles and files. ``packing``: how parsing results are compressed.
* ``triggering``: bodies about triggers, of the API and of ``rpc``.
* ``subjects``: how lanes and bands become NATS subjects. ``ids``: names, leases and tokens as text.
* ``schema``: the JSON schema of all of them, for the snapshot test and the OpenAPI document.
"""
