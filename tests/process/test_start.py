"""The service as `make run` and the image start it: it serves, says where, and stops. The one of its kind that is in `make test`."""

import requests

from tests.process.service import register, running


def test_it_serves_says_where_and_stops(unused_tcp_port: int) -> None:
    with running(unused_tcp_port) as service:
        headers = register(service, "process-alice")
        task = {"name": "a", "description": "", "status": "new"}
        assert requests.post(f"{service.url}/task", data=task, headers=headers, timeout=10).status_code == 201
        assert f"Listening on {service.url}; its documentation is {service.url}/docs" in service.output
        assert len(service.workers()) == 2
        assert service.stop() == 0
