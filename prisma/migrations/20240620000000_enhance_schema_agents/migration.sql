-- Each enhance_schema_<table> migration locks one existing table, taking its strongest lock
-- first, so that it cannot deadlock with the application. The statements of the file are one
-- transaction, which SET LOCAL needs: a lock that is not had in time changes nothing, and the
-- setting ends with the file.
SET LOCAL lock_timeout = '2s';

-- NaN is greater than every number in PostgreSQL, so the ranges refuse it too.
ALTER TABLE "AI_Agent"
    ADD COLUMN "lastActiveAt" TIMESTAMP(3),
    ADD COLUMN "totalSessions" INTEGER NOT NULL DEFAULT 0,
    ADD COLUMN "successRate" DOUBLE PRECISION,
    ADD COLUMN "specializations" TEXT[],
    ADD COLUMN "learningMode" TEXT,
    ADD COLUMN "trainingStatus" TEXT,
    ADD COLUMN "versionHistory" JSONB,
    ADD CONSTRAINT "AI_Agent_totalSessions_check" CHECK ("totalSessions" >= 0) NOT VALID,
    ADD CONSTRAINT "AI_Agent_successRate_check" CHECK ("successRate" >= 0 AND "successRate" <= 1) NOT VALID;

-- Room on each page lets an update of the counters, which no index holds, stay on its page (HOT).
ALTER TABLE "AI_Agent" SET (fillfactor = 85);

CREATE TABLE "AgentMetric" (
    "id" UUID NOT NULL,
    "occurredAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "agentId" TEXT NOT NULL,
    "metricType" TEXT NOT NULL,
    "metricValue" DOUBLE PRECISION NOT NULL,
    "timeframe" TEXT,
    "metadata" JSONB,

    CONSTRAINT "AgentMetric_pkey" PRIMARY KEY ("id"),
    CONSTRAINT "AgentMetric_metricValue_check" CHECK ("metricValue" > '-Infinity' AND "metricValue" < 'Infinity')
);

CREATE TABLE "AgentVersion" (
    "id" UUID NOT NULL,
    "agentId" TEXT NOT NULL,
    "versionNumber" TEXT NOT NULL,
    "changes" JSONB NOT NULL,
    "createdById" TEXT,
    "isActive" BOOLEAN NOT NULL DEFAULT false,
    "activatedAt" TIMESTAMP(3),
    "deactivatedAt" TIMESTAMP(3),
    "performance" JSONB,
    "createdAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "AgentVersion_pkey" PRIMARY KEY ("id")
);

CREATE INDEX "AgentMetric_agentId_metricType_occurredAt_idx" ON "AgentMetric"("agentId", "metricType", "occurredAt");

CREATE UNIQUE INDEX "AgentVersion_agentId_versionNumber_key" ON "AgentVersion"("agentId", "versionNumber");

CREATE INDEX "AgentVersion_createdById_idx" ON "AgentVersion"("createdById");

-- At most one version of an agent is active.
CREATE UNIQUE INDEX "AgentVersion_agentId_active_key" ON "AgentVersion"("agentId") WHERE "isActive";

ALTER TABLE "AgentMetric"
    ADD CONSTRAINT "AgentMetric_agentId_fkey" FOREIGN KEY ("agentId") REFERENCES "AI_Agent"("id") ON DELETE CASCADE ON UPDATE CASCADE NOT VALID;

ALTER TABLE "AgentVersion"
    ADD CONSTRAINT "AgentVersion_agentId_fkey" FOREIGN KEY ("agentId") REFERENCES "AI_Agent"("id") ON DELETE CASCADE ON UPDATE CASCADE NOT VALID;
