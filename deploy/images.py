"""The images of a bundle's jobs: `python -m deploy.images mwaa <repository>` or `... composer <repository>`.

Builds those that the repository does not have yet, of what the bundle says, and pushes them. Prints which images those are, as
lines of settings. An image's tag says what is in it, so one that is there is the one.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from deploy import bundle

VARIABLES = {"sagemaker": "AILERON_AWS_IMAGE", "vertex": "AILERON_GCP_IMAGE", "dataflow": "AILERON_DATAFLOW_IMAGE"}


def address(target: bundle.Target, repository: str, name: str, tag: str) -> str:
    """A repository of ECR holds one image, one of Artifact Registry many."""
    return f"{repository}:{tag}" if target == "mwaa" else f"{repository}/{name}:{tag}"


def pushed(image: str) -> bool:
    return subprocess.run(["docker", "manifest", "inspect", image], capture_output=True).returncode == 0


def push(image: str, dockerfile: str, context: bytes) -> None:
    arguments = ["--file", dockerfile, "--tag", image, "--build-arg", f"IMAGE={image}"]
    subprocess.run(["docker", "build", *arguments, "-"], input=context, check=True, stdout=sys.stderr)
    subprocess.run(["docker", "push", image], check=True, stdout=sys.stderr)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.images", description=__doc__)
    parser.add_argument("target", choices=bundle.TARGETS)
    parser.add_argument("repository", help="URI of the repository of ECR, or of Artifact Registry")
    asked = parser.parse_args()
    try:
        built = bundle.read(bundle.BUNDLES / asked.target)
        for name, tag in built.manifest["images"].items():
            image = address(asked.target, asked.repository, name, tag)
            if not pushed(image):
                push(image, bundle.SERVICES[asked.target].images[name], built.files[f"jobs/{name}.tar"])
            print(f"{VARIABLES[name]}={image}")
    except bundle.Unbuildable as error:
        print(f"no images: {error}", file=sys.stderr)
        return 1
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"no images: {error}; docker must run, and be logged in to {asked.repository}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
