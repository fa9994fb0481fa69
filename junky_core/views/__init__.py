"""What people see of a sweep: leaderboard, results, progress, report."""
