"""The S3 policy of docs/security.md is enough to score, and too little to register."""

import json
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import boto3
import moto.settings
import pytest
from moto.core.responses import ActionAuthenticatorMixin

from nightshift.adapters.errors import StoreAccessDenied
from nightshift.flows.operations.doctor import examine
from nightshift.flows.score import score
from project import Project

DOCUMENT = Path(__file__).parents[3] / "docs" / "security.md"


def documented_policy(bucket: str, prefix: str) -> str:
    (text,) = re.findall(r"```json\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    policy = text.replace("my-bucket/models", f"{bucket}/{prefix}").replace("my-bucket", bucket)
    return json.dumps(json.loads(policy))


@pytest.fixture
def policy_in_force(project: Project, s3: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The project's credentials are those of a user who may do what the document says."""
    project.fill(rows=20)
    project.register()
    access = {"aws_access_key_id": "any", "aws_secret_access_key": "any"}
    client: Any = boto3.client("iam", endpoint_url=s3, region_name="us-east-1", **access)
    bucket, _, prefix = project.store.url.removeprefix("s3://").partition("/")
    with closing(client) as iam:
        iam.create_user(UserName="scorer")
        iam.put_user_policy(
            UserName="scorer",
            PolicyName="documented",
            PolicyDocument=documented_policy(bucket, prefix),
        )
        made = iam.create_access_key(UserName="scorer")["AccessKey"]
        monkeypatch.setenv("NIGHTSHIFT_STORE__KEY", made["AccessKeyId"])
        monkeypatch.setenv("NIGHTSHIFT_STORE__SECRET", made["SecretAccessKey"])
        before = moto.settings.INITIAL_NO_AUTH_ACTION_COUNT
        moto.settings.INITIAL_NO_AUTH_ACTION_COUNT = ActionAuthenticatorMixin.request_count
        yield
        moto.settings.INITIAL_NO_AUTH_ACTION_COUNT = before
        iam.delete_access_key(UserName="scorer", AccessKeyId=made["AccessKeyId"])
        iam.delete_user_policy(UserName="scorer", PolicyName="documented")
        iam.delete_user(UserName="scorer")


@pytest.mark.usefixtures("policy_in_force")
def test_a_worker_scores_and_cannot_register(project: Project, prefect: str) -> None:
    assert score("orders", "2024-03-01").rows == 10
    with pytest.raises(StoreAccessDenied):
        project.register()
    with pytest.raises(StoreAccessDenied):
        project.store.promote("doubler", 1, "other")
    findings = [finding for finding in examine() if finding.check == "store"]
    assert [finding.state for finding in findings] == ["ok", "ok"]
    assert findings[1].text.startswith("read only")
