"""Real servers and real Airflow on one machine, for the demo, the tests and the benchmarks."""
