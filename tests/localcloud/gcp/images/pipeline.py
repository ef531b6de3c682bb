"""A pipeline of the tests, launched from a flex template; with --beam it is one of Apache Beam."""

from __future__ import annotations

import argparse
import json
import sys
import time


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--behave", default="")
    parser.add_argument("--beam", default="")
    parser.add_argument("--source", required=True)
    parser.add_argument("--target", required=True)
    options, others = parser.parse_known_args()
    print(f"options: {json.dumps(others)}", flush=True)
    if options.behave == "fail":
        print("RuntimeError: a column is missing", file=sys.stderr, flush=True)
        return 5
    if options.behave == "hang":
        time.sleep(600)
    if options.beam:
        import apache_beam as beam
        from apache_beam.io.filesystems import FileSystems
        from apache_beam.options.pipeline_options import PipelineOptions

        def written(lines: list[str], target: str) -> None:
            with FileSystems.create(target) as file:
                file.write("".join(f"{line}\n" for line in sorted(lines)).encode())

        with beam.Pipeline(options=PipelineOptions(others)) as pipeline:
            upper = pipeline | beam.io.ReadFromText(options.source) | beam.Map(str.upper)
            upper | beam.combiners.ToList() | beam.Map(written, options.target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
