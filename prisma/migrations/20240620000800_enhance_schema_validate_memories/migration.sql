SET LOCAL lock_timeout = '2s';

ALTER TABLE "InteractionMemory"
    VALIDATE CONSTRAINT "InteractionMemory_confidence_check",
    VALIDATE CONSTRAINT "InteractionMemory_accessCount_check";

ALTER TABLE "MemoryAccess"
    VALIDATE CONSTRAINT "MemoryAccess_memoryId_fkey";

ALTER TABLE "MemoryAnnotation"
    VALIDATE CONSTRAINT "MemoryAnnotation_memoryId_fkey";
