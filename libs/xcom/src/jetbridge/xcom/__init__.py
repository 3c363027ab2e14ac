"""
XCom values and task logs in S3-compatible object storage, written and read by workers only.

* ``settings``: where the store is. ``client``: connection and credentials. ``store``: objects in and out.
* ``errors``: everything that can go wrong with the store, and what to do about it.
* ``reference``: what the plane keeps instead of a value. ``keys``: names of objects. ``values``: their bytes.
* ``backend``, ``logs``, ``logging_config``: Airflow's hooks. Only these import Airflow.

On a worker::

    AIRFLOW__CORE__XCOM_BACKEND=jetbridge.xcom.backend.ObjectStoreXComBackend
    AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS=jetbridge.xcom.logging_config.LOGGING_CONFIG
"""
