"""SageMaker."""

from localcloud.service import Cloud, Handler


def operations(cloud: Cloud) -> dict[str, Handler]:
    return {}
