SET LOCAL lock_timeout = '2s';

ALTER TABLE "AgentSession"
    ADD COLUMN "sessionPurpose" TEXT,
    ADD COLUMN "businessContext" JSONB,
    ADD COLUMN "sessionTags" TEXT[],
    ADD COLUMN "sessionSource" TEXT,
    ADD COLUMN "parentSessionId" TEXT,
    ADD COLUMN "qualityScore" DOUBLE PRECISION,
    ADD COLUMN "userSatisfaction" DOUBLE PRECISION,
    ADD COLUMN "learningOutcomes" JSONB,
    ADD CONSTRAINT "AgentSession_parentSessionId_check" CHECK ("parentSessionId" <> "id") NOT VALID,
    ADD CONSTRAINT "AgentSession_qualityScore_check" CHECK ("qualityScore" >= 0 AND "qualityScore" <= 1) NOT VALID,
    ADD CONSTRAINT "AgentSession_userSatisfaction_check" CHECK ("userSatisfaction" >= 0 AND "userSatisfaction" <= 1) NOT VALID;

CREATE TABLE "SessionMetric" (
    "id" UUID NOT NULL,
    "occurredAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "sessionId" TEXT NOT NULL,
    "metricType" TEXT NOT NULL,
    "metricValue" DOUBLE PRECISION NOT NULL,
    "metadata" JSONB,

    CONSTRAINT "SessionMetric_pkey" PRIMARY KEY ("id"),
    CONSTRAINT "SessionMetric_metricValue_check" CHECK ("metricValue" > '-Infinity' AND "metricValue" < 'Infinity')
);

CREATE TABLE "SessionEvent" (
    "id" UUID NOT NULL,
    "occurredAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "sessionId" TEXT NOT NULL,
    "eventType" TEXT NOT NULL,
    "eventData" JSONB NOT NULL,
    "sequence" INTEGER NOT NULL,
    "duration" DOUBLE PRECISION,

    CONSTRAINT "SessionEvent_pkey" PRIMARY KEY ("id"),
    CONSTRAINT "SessionEvent_duration_check" CHECK ("duration" >= 0 AND "duration" < 'Infinity')
);

CREATE INDEX "SessionMetric_sessionId_metricType_occurredAt_idx" ON "SessionMetric"("sessionId", "metricType", "occurredAt");

CREATE INDEX "SessionEvent_sessionId_sequence_idx" ON "SessionEvent"("sessionId", "sequence");

ALTER TABLE "SessionMetric"
    ADD CONSTRAINT "SessionMetric_sessionId_fkey" FOREIGN KEY ("sessionId") REFERENCES "AgentSession"("id") ON DELETE CASCADE ON UPDATE CASCADE NOT VALID;

ALTER TABLE "SessionEvent"
    ADD CONSTRAINT "SessionEvent_sessionId_fkey" FOREIGN KEY ("sessionId") REFERENCES "AgentSession"("id") ON DELETE CASCADE ON UPDATE CASCADE NOT VALID;
