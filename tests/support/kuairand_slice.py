"""KuaiRand-Pure's real files, where they are at hand."""

import csv
import pathlib
import shutil

REAL = pathlib.Path(__file__).resolve().parents[3] / "shared/data/kuairand_pure"
LOG = "log_standard_4_22_to_5_08_pure.csv"


def some_users(target, days, one_in):
    """The real files with the exposures of one user in `one_in` on the given days."""
    target.mkdir()
    for path in REAL.glob("*_pure.csv"):
        if path.name != LOG:
            shutil.copy(path, target)
    for name in (LOG, "user_history_before_4_25.csv"):
        with (REAL / name).open(newline="") as source, (target / name).open("w", newline="") as file:
            rows = csv.DictReader(source)
            writer = csv.DictWriter(file, rows.fieldnames)
            writer.writeheader()
            writer.writerows(r for r in rows if int(r["user_id"]) % one_in == 0 and r.get("date", days[0]) in days)
    return target
