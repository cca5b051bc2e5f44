CREATE INDEX CONCURRENTLY "AgentSession_userId_idx" ON "AgentSession"("userId");
