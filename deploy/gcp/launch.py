"""What a Flex Template of Dataflow runs: the pipeline whose parameters it is given."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from include.jobs import beam_postprocess, beam_score

# What only one of them reads; a parameter that names the pipeline would have but one value in each template.
PIPELINES = {"input": beam_postprocess.main, "features": beam_score.main}


def main(arguments: Sequence[str]) -> int:
    given = {argument.removeprefix("--").partition("=")[0] for argument in arguments}
    found = [pipeline for name, pipeline in PIPELINES.items() if name in given]
    if len(found) != 1:
        print(f"ERROR: give one of {', '.join(f'--{name}' for name in PIPELINES)}", file=sys.stderr)
        return 1
    # Workers run in the image of the launcher, which has the model's own version of XGBoost, unless another is asked for.
    image = os.environ.get("AILERON_DATAFLOW_IMAGE", "")
    default = [f"--sdk_container_image={image}"] if image and "sdk_container_image" not in given else []
    return found[0]([*arguments, *default])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
