-- Validating reads the table while it is read and written as ever (SHARE UPDATE EXCLUSIVE), which
-- is why it is apart from adding the constraints. One table a file, so that no lock is held
-- while another table is read.
SET LOCAL lock_timeout = '2s';

ALTER TABLE "AI_Agent"
    VALIDATE CONSTRAINT "AI_Agent_totalSessions_check",
    VALIDATE CONSTRAINT "AI_Agent_successRate_check";

ALTER TABLE "AgentMetric"
    VALIDATE CONSTRAINT "AgentMetric_agentId_fkey";

ALTER TABLE "AgentVersion"
    VALIDATE CONSTRAINT "AgentVersion_agentId_fkey",
    VALIDATE CONSTRAINT "AgentVersion_createdById_fkey";
