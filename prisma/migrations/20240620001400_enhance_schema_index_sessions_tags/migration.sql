CREATE INDEX CONCURRENTLY "AgentSession_sessionTags_idx" ON "AgentSession" USING GIN ("sessionTags");
