SET LOCAL lock_timeout = '2s';

ALTER TABLE "InteractionMemory"
    ADD COLUMN "sessionId" TEXT,
    ADD COLUMN "memoryType" TEXT,
    ADD COLUMN "confidence" DOUBLE PRECISION,
    ADD COLUMN "lastAccessedAt" TIMESTAMP(3),
    ADD COLUMN "accessCount" INTEGER NOT NULL DEFAULT 0,
    ADD COLUMN "sourceType" TEXT,
    ADD COLUMN "verificationStatus" TEXT,
    ADD COLUMN "relatedMemories" JSONB,
    ADD COLUMN "expiresAt" TIMESTAMP(3),
    ADD CONSTRAINT "InteractionMemory_confidence_check" CHECK ("confidence" >= 0 AND "confidence" <= 1) NOT VALID,
    ADD CONSTRAINT "InteractionMemory_accessCount_check" CHECK ("accessCount" >= 0) NOT VALID;

-- Every access moves accessCount and lastAccessedAt, which no index holds: with room on its page
-- the update is HOT. Pages written before this keep their filling until rows on them move.
ALTER TABLE "InteractionMemory" SET (fillfactor = 85);

CREATE TABLE "MemoryAccess" (
    "id" UUID NOT NULL,
    "occurredAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "memoryId" TEXT NOT NULL,
    "accessType" TEXT NOT NULL,
    "accessedBy" TEXT NOT NULL,
    "accessorType" TEXT NOT NULL,
    "context" TEXT,
    "usefulness" DOUBLE PRECISION,

    CONSTRAINT "MemoryAccess_pkey" PRIMARY KEY ("id"),
    CONSTRAINT "MemoryAccess_usefulness_check" CHECK ("usefulness" >= 0 AND "usefulness" <= 1)
);

CREATE TABLE "MemoryAnnotation" (
    "id" UUID NOT NULL,
    "memoryId" TEXT NOT NULL,
    "annotationType" TEXT NOT NULL,
    "content" JSONB NOT NULL,
    "createdById" TEXT,
    "isApplied" BOOLEAN NOT NULL DEFAULT false,
    "appliedAt" TIMESTAMP(3),
    "createdAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "MemoryAnnotation_pkey" PRIMARY KEY ("id")
);

CREATE INDEX "MemoryAccess_memoryId_occurredAt_idx" ON "MemoryAccess"("memoryId", "occurredAt");

CREATE INDEX "MemoryAnnotation_memoryId_createdAt_idx" ON "MemoryAnnotation"("memoryId", "createdAt");

ALTER TABLE "MemoryAccess"
    ADD CONSTRAINT "MemoryAccess_memoryId_fkey" FOREIGN KEY ("memoryId") REFERENCES "InteractionMemory"("id") ON DELETE CASCADE ON UPDATE CASCADE NOT VALID;

ALTER TABLE "MemoryAnnotation"
    ADD CONSTRAINT "MemoryAnnotation_memoryId_fkey" FOREIGN KEY ("memoryId") REFERENCES "InteractionMemory"("id") ON DELETE CASCADE ON UPDATE CASCADE NOT VALID;
