-- One statement a file, as said in 20240620001000. Partial: rows that never expire cost nothing.
CREATE INDEX CONCURRENTLY "InteractionMemory_expiresAt_idx" ON "InteractionMemory"("expiresAt") WHERE "expiresAt" IS NOT NULL;
