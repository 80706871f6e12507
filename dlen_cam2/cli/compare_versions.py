"""Check whether a new version is fit to replace the live one.

    dlen_cam2 compare_versions --live=DIR/3 --candidate=DIR/4

The command sends the same requests to both, as a server would, and prints how far each score moved. The requests come
from a file of recorded requests (--requests), from the rows of a day (--data_dir, --day), or else from the warm-up file
of the live version. The exit status is 1 if the candidate fails: its signatures differ, a score is not finite, or a
score moved further than a day's training explains.
"""

import pathlib

from absl import flags

from dlen_cam2.schema import pbtxt
from dlen_cam2.serving import request_log, version_comparison, versions
from dlen_cam2.utils import commands, console, page
from dlen_cam2.utils.errors import UserError
from dlen_cam2.utils.files import staged

FLAGS = flags.FLAGS

REPORT = "verify.md"
PICTURE = "verify.png"
# DESIGN, from 2000 rows of the simulated feed (MMOE-DLEN): a day of training more moved means by at most 28% and left
# an agreement of at least .95; six days from another seed, 30% and .85. With numbers that are not normalised means
# moved by 52% to 99%; with shuffled embedding rows agreements fell to .45. On random rows (a warm-up file made without
# data) scores move more: 44%, and .62 from another seed.
MAX_DRIFT, MIN_AGREEMENT = 0.5, 0.7


def define_flags() -> None:
    flags.DEFINE_string("live", None, "Directory of the version that is served now.", required=True)
    flags.DEFINE_string("candidate", None, "Directory of the version that is to replace it.", required=True)
    flags.DEFINE_string("requests", None, "File of requests to send: TFRecords of PredictionLog, as TensorFlow "
                        "Serving logs them.")
    flags.DEFINE_string("data_dir", None, "Directory of a data set whose rows are sent, in place of --requests.")
    flags.DEFINE_string("day", None, "Day of --data_dir whose first rows are sent.")
    flags.DEFINE_integer("rows", 2000, "Number of rows of --day to send, 500 in a request.", lower_bound=1)
    flags.DEFINE_float("max_drift", MAX_DRIFT, "Greatest relative change of a score's mean that is accepted.",
                       lower_bound=0)
    flags.DEFINE_float("min_agreement", MIN_AGREEMENT, "Least rank correlation between the scores of both versions "
                       "that is accepted.", lower_bound=-1)
    flags.DEFINE_string("output", None, "Directory to write verify.md, verify.html and verify.png to. Default: none.")


def main() -> None:
    live, candidate = versions.load(FLAGS.live), versions.load(FLAGS.candidate)
    if changed := version_comparison.changes(live.signatures, candidate.signatures):
        raise UserError(f"{FLAGS.candidate} must keep the signatures of {FLAGS.live}, which clients rely on. Received: "
                            f"{'; '.join(changed)}.")
    logs = _requests(live)
    before = version_comparison.replay(live, logs, FLAGS.live)
    after = version_comparison.replay(candidate, logs, FLAGS.candidate)
    drifts = version_comparison.compare(before, after)
    text = version_comparison.table(drifts)
    if (share := version_comparison.overlap(before, after)) is not None:
        text += (f"\n\nThe two versions agree on {share:.1%} of the first {version_comparison.TOP} items of a `rank` "
                 "request.")
    failed = version_comparison.failures(drifts, FLAGS.max_drift, FLAGS.min_agreement)
    verdict = "fails: " + "; ".join(failed) if failed else "is fit"
    if FLAGS.output:
        with staged(FLAGS.output, REPORT) as stage:
            version_comparison.draw(stage / PICTURE, before, after)
            page.write(
                stage / REPORT, f"# {FLAGS.candidate} against {FLAGS.live}\n\nThe candidate {verdict}.\n\n{text}\n\n"
                f"![scores of the candidate by those of the live version]({PICTURE})\n"
            )
    console.page(f"{len(logs)} requests\n\n{text}\n")
    if failed:
        raise UserError(f"{FLAGS.candidate} {verdict}.")
    console.say(f"{FLAGS.candidate} {verdict}.")
    candidate_of = pathlib.Path(FLAGS.candidate).resolve()
    console.next_step(commands.line("publish", served=candidate_of.parent, canary=candidate_of.name))


def _requests(live: versions.Loaded) -> list[request_log.PredictionLog]:
    given = [name for name in ("requests", "data_dir") if FLAGS[name].value]
    if len(given) > 1 or (FLAGS.data_dir is None) != (FLAGS.day is None):
        raise UserError("either --requests, or --data_dir and --day together, may be given. Received: "
                            f"requests={FLAGS.requests}, data_dir={FLAGS.data_dir}, day={FLAGS.day}.")
    if FLAGS.data_dir is None:
        return request_log.read(FLAGS.requests or pathlib.Path(FLAGS.live) / request_log.WARM_UP)
    asked = [name for name in ("raw", "rank") if name in live.signatures]
    if not asked:
        raise UserError(f"{FLAGS.live} must have the signature raw or rank, so that rows can be sent to it. Received: "
                            f"{sorted(live.signatures)}.")
    schema = pbtxt.load(FLAGS.data_dir).select(features=live.signatures[asked[0]].inputs)
    columns = request_log.first_rows(FLAGS.data_dir, FLAGS.day, schema, FLAGS.rows)
    return request_log.in_requests(schema, columns, schema.name, asked)


if __name__ == "__main__":
    commands.run(main, define_flags)
