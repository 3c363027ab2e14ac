"""The plugins that Airflow loads together with its examples, without the listener, which only prints."""

from airflow.example_dags.plugins import (
    business_day_window,
    custom_partition_mapper,
    custom_partition_timetable,
    decreasing_priority_weight_strategy,
    workday,
)
from airflow.plugins_manager import AirflowPlugin

for _module in (
    business_day_window,
    custom_partition_mapper,
    custom_partition_timetable,
    decreasing_priority_weight_strategy,
    workday,
):
    for _name, _value in vars(_module).items():
        if isinstance(_value, type) and issubclass(_value, AirflowPlugin) and _value is not AirflowPlugin:
            globals()[_name] = _value
