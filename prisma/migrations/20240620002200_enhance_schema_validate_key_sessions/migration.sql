SET LOCAL lock_timeout = '2s';

ALTER TABLE "AgentSession"
    VALIDATE CONSTRAINT "AgentSession_parentSessionId_fkey";
