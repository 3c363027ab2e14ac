raise AssertionError("airflow dag: nobody should import this")
