CREATE INDEX CONCURRENTLY "AgentSession_agentId_startedAt_idx" ON "AgentSession"("agentId", "startedAt");
