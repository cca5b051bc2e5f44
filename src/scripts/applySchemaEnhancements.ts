import { startRuns } from '../cli/actions/backfill.ts';
import { START_DEFAULTS } from '../cli/backfill.ts';
import { reportFailure } from '../cli/failure.ts';

// Step 3 of the migration guide: what `annals backfill start` does.
try {
  await startRuns([], START_DEFAULTS);
} catch (error) {
  process.exitCode = await reportFailure(error);
}
process.exit();
