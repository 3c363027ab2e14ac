"""What runs inside Airflow on the plane: RemoteExecutor and log reader."""
