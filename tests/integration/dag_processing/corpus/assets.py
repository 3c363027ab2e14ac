"""Assets in every role: outlet, inlet, schedule, alias, references by name and URI, a watcher."""

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.triggers.file import FileDeleteTrigger
from airflow.sdk import DAG, Asset, AssetAlias, AssetWatcher, asset, task

raw = Asset("raw-orders", uri="s3://corpus/raw", group="corpus", extra={"owner": "orders"})
clean = Asset("clean-orders", uri="s3://corpus/clean")
alias = AssetAlias("whatever-arrives")
watched = Asset(
    "watched",
    uri="file://corpus/watched",
    watchers=[
        AssetWatcher(name="deletion", trigger=FileDeleteTrigger(filepath="/nowhere", poke_interval=60))
    ],
)

with DAG("corpus-producer", schedule="@daily", tags=["corpus", "producer"]):
    EmptyOperator(task_id="extract", outlets=[raw, alias])

with DAG("corpus-consumer", schedule=raw & (clean | watched), is_paused_upon_creation=False):
    EmptyOperator(task_id="load", inlets=[raw], outlets=[clean])

with DAG("corpus-by-alias", schedule=alias):
    EmptyOperator(task_id="react")

with DAG("corpus-by-reference", schedule=[Asset.ref(name="clean-orders"), Asset.ref(uri="s3://corpus/raw")]):

    @task
    def use():
        return 1

    use()


@asset(schedule="@hourly", name="corpus-asset-dag")
def from_a_decorator():
    return 2
