"""The leaderboard command, as `pg leaderboard`; `--help` lists its flags."""

from pg.commands import leaderboard

if __name__ == "__main__":
    raise SystemExit(leaderboard.main())
