CREATE INDEX CONCURRENTLY "AgentSession_parentSessionId_idx" ON "AgentSession"("parentSessionId");
