SET LOCAL lock_timeout = '2s';

ALTER TABLE "AgentSession"
    VALIDATE CONSTRAINT "AgentSession_parentSessionId_check",
    VALIDATE CONSTRAINT "AgentSession_qualityScore_check",
    VALIDATE CONSTRAINT "AgentSession_userSatisfaction_check";

ALTER TABLE "SessionMetric"
    VALIDATE CONSTRAINT "SessionMetric_sessionId_fkey";

ALTER TABLE "SessionEvent"
    VALIDATE CONSTRAINT "SessionEvent_sessionId_fkey";
