-- One statement a file: CONCURRENTLY cannot run in the transaction that several statements make.
-- It needs no lock_timeout, since neither the wait nor the build holds up reads or writes, and a
-- timeout would leave an invalid index behind. Nor does it say IF NOT EXISTS, which would take an
-- invalid index for a good one: docs/migrating.md, "When an index fails half way".
CREATE INDEX CONCURRENTLY "AI_Agent_userId_idx" ON "AI_Agent"("userId");
