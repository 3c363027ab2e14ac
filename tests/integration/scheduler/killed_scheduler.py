"""A scheduler's process to be killed: hands over the tasks whose ids it gets, then goes on."""

import sys
from uuid import UUID

from jetbridge.scheduler.executor import RemoteExecutor
from jetbridge.scheduler.testing import make_task

executor = RemoteExecutor(parallelism=100)
executor.start()
for task_id in sys.argv[1:]:
    executor.queue_workload(make_task(task_id, id=UUID(task_id)), session=None)
while len(executor.running) < len(sys.argv) - 1:
    executor.heartbeat()
    executor._link.wait_for_news(0.2)
sys.stdout.write("handed over\n")
sys.stdout.flush()
while True:
    executor.heartbeat()
    executor.get_event_buffer()
    executor._link.wait_for_news(0.2)
